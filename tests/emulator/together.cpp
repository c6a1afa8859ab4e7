// What the lanes of a warp do together: shuffles, votes, and the instructions of the tensor cores.
//
// The layouts are those of the PTX manual, "Matrix fragments for mma.m16n8k16" and "ldmatrix".

#include <cstring>

#include "half.h"
#include "machine.h"

static Offer& offer(int first, int lane) { return threads[first + lane].offer; }

static void shuffle(int first, u32 lanes) {
    u64 values[WARP];
    for (int i = 0; i < WARP; i++)
        if (lanes >> i & 1) values[i] = offer(first, i).value;
    for (int i = 0; i < WARP; i++) {
        if (!(lanes >> i & 1)) continue;
        int source = offer(first, i).source;
        if (!(lanes >> source & 1))
            fail(threads[first + i].where,
                 "lane %d takes the value of lane %d, which does not take part", i, source);
        offer(first, i).value = values[source];
    }
}

static void vote(int first, u32 lanes) {
    u64 all = 0;
    for (int i = 0; i < WARP; i++)
        if (lanes >> i & 1) all |= offer(first, i).value << i;
    for (int i = 0; i < WARP; i++)
        if (lanes >> i & 1) offer(first, i).value = all;
}

// Four matrices of 8 x 8 numbers. Lane i brings the address of row i % 8 of matrix i / 8. It takes
// from each matrix row i / 4, columns 2 (i % 4) and the next; or, transposed, that of the
// transpose.
static void load_matrices(int first, bool transposed) {
    const u16* row[WARP];
    for (int i = 0; i < WARP; i++) {
        u32 address = offer(first, i).words[0];
        const void* where = threads[first + i].where;
        row[i] = (const u16*)shared_memory(address, 16, where);
        note_shared(address, 16, READ, first + i, where);
    }
    // The memory is in 32 banks of 4 bytes; the 8 rows of a matrix are read at once.
    for (int matrix = 0; matrix < 4; matrix++) {
        u32 banks = 0;
        for (int i = 0; i < 8; i++) banks |= 1u << (offer(first, matrix * 8 + i).words[0] / 16 % 8);
        if (banks != 0xff)
            fail(threads[first].where, "ldmatrix: rows of matrix %d lie in the same banks", matrix);
    }
    for (int i = 0; i < WARP; i++)
        for (int matrix = 0; matrix < 4; matrix++) {
            const u16* const* rows = row + matrix * 8;
            int r = i / 4, c = i % 4 * 2;
            u16 low = transposed ? rows[c][r] : rows[r][c],
                high = transposed ? rows[c + 1][r] : rows[r][c + 1];
            offer(first, i).words[matrix] = low | (u32)high << 16;
        }
}

// c (16 x 8) += a (16 x 16) @ b (16 x 8), with the elements spread over the lanes.
static void multiply(int first, float (*wide)(u16)) {
    float a[16][16], b[16][8];
    for (int i = 0; i < WARP; i++) {
        const u32* words = offer(first, i).words;
        int g = i / 4, t = i % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int j = 0; j < 4; j++)
                a[g + j % 2 * 8][t + j / 2 * 8 + half] = wide(words[j] >> 16 * half);
            for (int j = 0; j < 2; j++) b[t + j * 8 + half][g] = wide(words[4 + j] >> 16 * half);
        }
    }
    float product[16][8] = {};
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < 8; c++) product[r][c] += a[r][k] * b[k][c];
    for (int i = 0; i < WARP; i++)
        for (int j = 0; j < 4; j++)
            offer(first, i).sums[j] += product[i / 4 + j / 2 * 8][i % 4 * 2 + j % 2];
}

void do_together(int first, u32 lanes, Meeting meeting) {
    if (meeting >= LOAD_MATRIX && lanes != ~0u)
        fail(threads[first].where, "the tensor cores need all 32 lanes; here are %08x", lanes);
    switch (meeting) {
        case SHUFFLE: return shuffle(first, lanes);
        case VOTE: return vote(first, lanes);
        case LOAD_MATRIX: return load_matrices(first, false);
        case LOAD_MATRIX_TRANSPOSED: return load_matrices(first, true);
        case MULTIPLY_BF16: return multiply(first, bf16_to_float);
        case MULTIPLY_F16: return multiply(first, f16_to_float);
        default: return;
    }
}
