// Masks of dropout: exactly those that the CPU draws, from the same keys.
//
// NumPy's generator Philox 4x64-10 (Salmon et al., 2011) turns a counter of four words and a key of
// two into four random words, by ten rounds of multiplications. A word gives two numbers of
// float32, the lower half first: its upper 24 bits, times 2^-24. The counter begins at
// (0, 0, draw, row), and NumPy adds 1 before it uses it. So any part of the sequence can be computed
// alone: a thread computes one block of four words, and with it eight elements of the mask.
// Arithmetic bounds it: twenty products of 64 bits a thread.

#include "device.cuh"

DEV void philox(u64 (&c)[4], u64 k0, u64 k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
        u64 high0 = __umul64hi(m0, c[0]), low0 = m0 * c[0];
        u64 high1 = __umul64hi(m1, c[2]), low1 = m1 * c[2];
        c[0] = high1 ^ c[1] ^ k0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
}

// keep (rows, n): 1 where the random number is at least p. blocks is ceil(n / 8), threads a row.
__global__ void __launch_bounds__(256)
keep_mask(const u64* key, const u64* rows, unsigned char* keep, i64 count, i64 blocks, i64 n, u64 draw, float p) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    i64 row = i / blocks, block = i % blocks;
    u64 words[4] = {(u64)block + 1, 0, draw, rows[row]};
    philox(words, key[0], key[1]);
    u32 bits[2] = {0, 0};  // eight bytes of the mask
#pragma unroll
    for (int j = 0; j < 8; j++) {
        u32 half = (u32)(words[j / 2] >> 32 * (j % 2));
        bits[j / 4] |= (u32)((float)(half >> 8) * 0x1p-24f >= p) << 8 * (j % 4);
    }
    unsigned char* to = keep + row * n + block * 8;
    if (n % 8 == 0) *reinterpret_cast<uint2*>(to) = make_uint2(bits[0], bits[1]);
    else
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (block * 8 + j < n) to[j] = (unsigned char)(bits[j / 4] >> 8 * (j % 4));
}
