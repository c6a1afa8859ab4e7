// Tiles of 16-bit numbers in shared memory, and their products on the tensor cores.
//
// A tile has rows of D numbers: queries, keys or values of one head, one position a row. Its chunks
// of 16 bytes are stored in an order that changes from row to row, so that the eight rows which
// ldmatrix reads at once lie in different memory banks, whether it reads along rows or columns.
//
// A warp holds a product of 16 M rows and 8 N columns in registers, as float[M][N][4] in each lane:
// M times N results of `mma` (device.cuh), whose layout `row_of` and `column_of` tell. The left
// operand of a product is in registers too, 16 of its columns at a time, as u32[M][4].

#include "device.cuh"

// The place in a tile, in bytes, of a row's chunk.
template <int D> DEV u32 place(int row, int chunk) {
    if constexpr (D == 32) return (u32)(row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4));
    else return (u32)(row * (2 * D) + ((chunk ^ (row & 7)) << 4));
}

// Begins to copy rows first, first + 1, ... of an array whose rows are `stride` apart to a tile of
// ROWS rows; rows from T on become zero. All threads of the block take part.
template <int D, int ROWS, int THREADS, class Low>
DEV void load_tile(u32 tile, const Low* array, u32 offset, u32 stride, int first, int T,
                   int thread) {
    constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
    static_assert(ROWS % STEP == 0 && STEP % 8 == 0, "a step keeps the order of the chunks");
    const int row = thread / CHUNKS, chunk = thread % CHUNKS;
    const u32 to = tile + place<D>(row, chunk);
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
        const int r = first + row + i * STEP;
        const bool inside = r < T;
        const u32 from = offset + (u32)(inside ? r : 0) * stride + (u32)(chunk * 8);
        cp_async16(to + i * STEP * 2 * D, array + from, inside ? 16 : 0);
    }
}

// ---- fragments: what a lane passes to ldmatrix, and what a lane holds

// Added to a tile's address: where a lane reads for operands whose rows are the tile's rows
// (by_rows), and for right operands whose columns are the tile's rows (by_columns).
template <int D> DEV u32 by_rows(int lane) { return place<D>(lane & 15, lane >> 4); }
template <int D> DEV u32 by_columns(int lane) {
    return place<D>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
}

// 16 rows of a tile from `row` (a multiple of 16) on, 16 of their columns: the k-th sixteen. Tiles
// are aligned to a row's bytes, so an exclusive or moves to other columns in the order of `place`.
template <int D> DEV void fragment(u32 (&r)[4], u32 tile, int row, int k) {
    ldmatrix4(r, (tile ^ (u32)(k << 5)) + row * 2 * D);
}
template <int D> DEV void fragment_trans(u32 (&r)[4], u32 tile, int row, int k) {
    ldmatrix4_trans(r, (tile ^ (u32)(k << 5)) + row * 2 * D);
}
template <int D, int M> DEV void fragments(u32 (&a)[M][4], u32 tile, int k) {
#pragma unroll
    for (int m = 0; m < M; m++) fragment<D>(a[m], tile, m * 16, k);
}

// The row and the column, within the warp's product, of element c[m][n][e].
DEV int row_of(int lane, int m, int e) { return m * 16 + (lane >> 2) + (e >> 1) * 8; }
DEV int column_of(int lane, int n, int e) { return n * 8 + 2 * (lane & 3) + (e & 1); }

// f(c[m][n][e], m, n, e) for every element.
template <int M, int N, class F> DEV void each(float (&c)[M][N][4], F f) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) f(c[m][n][e], m, n, e);
}
template <int M, int N> DEV void fill(float (&c)[M][N][4], float x) {
    each(c, [&](float& element, int, int, int) { element = x; });
}

// ---- products

// c += a @ X.T: `a` has 16 columns, X is the tile's k-th sixteen columns.
template <class Low, int D, int M, int N>
DEV void add_product_trans(float (&c)[M][N][4], const u32 (&a)[M][4], u32 tile, int k) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        u32 b[4];
        fragment<D>(b, tile, n * 8, k);
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma<Low>(c[m][n], a[m], b[0], b[1]);
            mma<Low>(c[m][n + 1], a[m], b[2], b[3]);
        }
    }
}

// c += a @ X: `a` has 16 columns, X is the tile's k-th sixteen rows.
template <class Low, int D, int M>
DEV void add_product(float (&c)[M][D / 8][4], const u32 (&a)[M][4], u32 tile, int k) {
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
        u32 b[4];
        fragment_trans<D>(b, tile, k * 16, n / 2);
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma<Low>(c[m][n], a[m], b[0], b[1]);
            mma<Low>(c[m][n + 1], a[m], b[2], b[3]);
        }
    }
}

// The left operand of the next product: the k-th sixteen columns of the elements f(m, n, e).
template <class Low, int M, class F> DEV void pack(u32 (&a)[M][4], int k, F f) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int n = 2 * k + (i >> 1), e = 2 * (i & 1);
            a[m][i] = pack2<Low>(f(m, n, e), f(m, n, e + 1));
        }
}

// Writes a product to rows first, first + 1, ... below T of an array. It goes through rows from
// `row` on of a tile that only this warp uses, so that lanes write 16 bytes side by side.
template <class Low, int D, int M>
DEV void store_rows(const float (&c)[M][D / 8][4], unsigned char* tile, int row, Low* array,
                    size_t stride, int first, int T, int lane) {
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                unsigned char* chunk = tile + place<D>(row + row_of(lane, m, e), n);
                *(u32*)(chunk + 4 * (lane & 3)) = pack2<Low>(c[m][n][e], c[m][n][e + 1]);
            }
    __syncwarp();
    constexpr int CHUNKS = D / 8;
#pragma unroll
    for (int i = lane; i < 16 * M * CHUNKS; i += 32) {
        const int r = i / CHUNKS, chunk = i % CHUNKS;
        if (first + r < T)
            *(uint4*)(array + (size_t)(first + r) * stride + chunk * 8) =
                *(const uint4*)(tile + place<D>(row + r, chunk));
    }
}
