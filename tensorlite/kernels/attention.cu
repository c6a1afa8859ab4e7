// Causal self-attention of all heads at once: y = softmax(q @ k.T * scale) @ v, and its gradients.
//
// The (T, T) scores of a head are never in memory. A block of threads takes some rows of a head and
// goes over the other side in tiles of 64: it computes a tile of scores, turns them into weights,
// and multiplies these by the values at once, keeping for each row the largest score and the sum of
// the exponentials so far, by which earlier results are corrected. For the gradients the weights
// are computed again, from the logarithm of each row's sum, `lse`. Two kernels compute gradients,
// of the queries and of the keys and values: each result has one block that sums it, in a fixed
// order, so there are no atomics and the same bits in every run. FlashAttention-2 (Dao, 2023).
//
// Arrays: qkv (B, T, 3C), y and its gradient g (B, T, C), of type Low (bf16 or f16), where C is
// `heads` times D; lse (B, heads, T) and terms (B, heads, T, 2) float32. With DROP, weights whose
// byte in keep (B, heads, T, T) is 0 are dropped and the others multiplied by `kept`, 1 / (1 - p).
// The sums of the exponentials count all weights. Exponentials are powers of 2, which the hardware
// has: scale2 is scale * log2 e, and lse is a logarithm to base 2.
//
// Threads: a block has 4 warps, and a warp owns 16 M rows: queries, or keys in the last kernel. The
// scores stay in the registers of the warp that computed them, and are the left operand of the next
// product as they are (tiles.cuh). The next tile is copied while one is worked on. What bounds the
// kernels is arithmetic, on the tensor cores and in the exponentials; registers decide how many
// blocks share a multiprocessor: BLOCKS, at least.

#include "tiles.cuh"

constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr int SIDE = 64;   // rows of a tile
constexpr int STRIP = 32;  // columns of scores that the backward kernels hold at a time
constexpr int GROUP = 64;  // heads whose keys and values stay in the cache together

// Which rows of which head a block works on, and where these begin in the arrays. Blocks start in
// the order of their numbers: group by group of heads, in a group those with the most work first.
struct Block {
    int rank, head;  // rank 0 has the most work; head counts through the batch
    u32 q, k, v, y;  // offsets of the head in qkv and in y

    template <int D> DEV static Block of(int number, int rows, int T, int heads) {
        const int blocks = (T + rows - 1) / rows, all = gridDim.x / blocks;
        const int group = number / (blocks * GROUP), start = group * GROUP;
        const int within = number - group * blocks * GROUP;
        const int n = all - start < GROUP ? all - start : GROUP;
        Block block;
        block.rank = within / n;
        block.head = start + within - block.rank * n;
        const int b = block.head / heads, h = block.head - b * heads;
        const u32 C = heads * D;
        block.q = (u32)b * T * 3 * C + h * D;
        block.k = block.q + C;
        block.v = block.k + C;
        block.y = (u32)b * T * C + h * D;
        return block;
    }
};

// Hides the scores of keys after their query, in a warp's product whose rows begin at `row` and
// whose columns begin at `column`; its rows are queries, or keys with KEY_ROWS.
template <bool KEY_ROWS, int M, int N>
DEV void hide_future(float (&s)[M][N][4], int row, int column, int lane) {
    each(s, [&](float& score, int m, int n, int e) {
        const int r = row + row_of(lane, m, e), c = column + column_of(lane, n, e);
        if (KEY_ROWS ? c < r : c > r) score = -INF;
    });
}

// Whether dropout keeps the weight of a key for a query; `keep` is the head's.
DEV bool keeps(const bool* keep, int query, int key, int T) {
    return query < T && key <= query && keep[(size_t)query * T + key];
}

// ---- y and lse: ceil(T / rows) * B * heads blocks, of `rows` queries each

template <class Low, int D, int M, int BLOCKS, bool DROP>
__global__ void __launch_bounds__(THREADS, BLOCKS)
attention_forward(const Low* __restrict__ qkv, Low* __restrict__ y, float* __restrict__ lse,
                  const bool* __restrict__ keep, int T, int heads, float scale2, float kept) {
    constexpr int ROWS = WARPS * M * 16, TILE = SIDE * D * 2;
    DYNAMIC(shared);
    const int thread = threadIdx.x, lane = thread & 31, own = (thread >> 5) * M * 16;
    const Block block = Block::of<D>(block_id(), ROWS, T, heads);
    const int first = ((T + ROWS - 1) / ROWS - 1 - block.rank) * ROWS, row = first + own;
    const u32 C = heads * D;
    const u32 Q = shared_address(shared), K = Q + ROWS * D * 2, V = K + 2 * TILE;
    const u32 rows = by_rows<D>(lane), columns = by_columns<D>(lane);
    const int tiles = ((first + ROWS < T ? first + ROWS : T) + SIDE - 1) / SIDE;
    if constexpr (DROP) keep += (size_t)block.head * T * T;

    load_tile<D, ROWS, THREADS>(Q, qkv, block.q, 3 * C, first, T, thread);
    load_tile<D, SIDE, THREADS>(K, qkv, block.k, 3 * C, 0, T, thread);
    load_tile<D, SIDE, THREADS>(V, qkv, block.v, 3 * C, 0, T, thread);
    cp_commit();
    cp_wait_all();
    __syncthreads();

    u32 q[D / 16][M][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) fragments<D>(q[k], Q + rows + own * 2 * D, k);

    // Of each row (the rows of a lane are m * 16 + lane / 4 and 8 after it): the sum of the values
    // weighted by exp(score - top), the largest score, the sum of the exponentials in this lane.
    float o[M][D / 8][4], top[M][2], total[M][2];
    fill(o, 0.f);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            top[m][half] = -INF;
            total[m][half] = 0.f;
        }

    for (int j = 0; j < tiles; j++) {
        const int key = j * SIDE;
        const u32 now = (j & 1) * TILE, next = TILE - now;
        if (j + 1 < tiles) {
            load_tile<D, SIDE, THREADS>(K + next, qkv, block.k, 3 * C, key + SIDE, T, thread);
            load_tile<D, SIDE, THREADS>(V + next, qkv, block.v, 3 * C, key + SIDE, T, thread);
            cp_commit();
        }
        if (key < row + M * 16) {
            float s[M][SIDE / 8][4];
            fill(s, 0.f);
#pragma unroll
            for (int k = 0; k < D / 16; k++)
                add_product_trans<Low, D>(s, q[k], K + now + columns, k);
            if (key + SIDE - 1 > row) hide_future<false>(s, row, key, lane);
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float largest = top[m][half];
#pragma unroll
                    for (int n = 0; n < SIDE / 8; n++)
                        largest = fmaxf(largest, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
                    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
                    const float before = ex2((top[m][half] - largest) * scale2);
                    const float shift = largest * scale2;
                    top[m][half] = largest;
                    float sum = total[m][half] * before;
#pragma unroll
                    for (int n = 0; n < SIDE / 8; n++) {
                        float* two = &s[m][n][2 * half];
                        two[0] = ex2(two[0] * scale2 - shift);
                        two[1] = ex2(two[1] * scale2 - shift);
                        sum += two[0] + two[1];
                    }
                    total[m][half] = sum;
#pragma unroll
                    for (int n = 0; n < D / 8; n++) {
                        o[m][n][2 * half] *= before;
                        o[m][n][2 * half + 1] *= before;
                    }
                }
            if constexpr (DROP)
                each(s, [&](float& weight, int m, int n, int e) {
                    const int q = row + row_of(lane, m, e), k = key + column_of(lane, n, e);
                    if (!keeps(keep, q, k, T)) weight = 0.f;
                });
#pragma unroll
            for (int k = 0; k < SIDE / 16; k++) {
                u32 p[M][4];
                pack<Low>(p, k, [&](int m, int n, int e) { return s[m][n][e]; });
                add_product<Low, D>(o, p, V + now + rows, k);
            }
        }
        cp_wait_all();
        __syncthreads();
    }

#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[m][half];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const float share = (DROP ? kept : 1.f) / sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                o[m][n][2 * half] *= share;
                o[m][n][2 * half + 1] *= share;
            }
            const int r = row + row_of(lane, m, 2 * half);
            if ((lane & 3) == 0 && r < T)
                lse[(size_t)block.head * T + r] = top[m][half] * scale2 + log2f(sum);
        }
    store_rows<Low, D>(o, shared, own, y + block.y, C, row, T, lane);
}

// ---- the gradient of the queries, and of each row terms = {-lse, -sum(g * y)}
//
// With the weights p = exp(scores - max) / sum, and dp = g @ v.T, their gradient, the scores have
// the gradient ds = p * (dp - sum(p * dp)); this sum over the keys equals sum(g * y). Then
// dq = ds @ k * scale. Dropout applies to dp as it did to p, and sum(g * y) is right with it too.

template <class Low, int D, int M, int BLOCKS, bool DROP>
__global__ void __launch_bounds__(THREADS, BLOCKS)
attention_backward_q(const Low* __restrict__ g, const Low* __restrict__ qkv,
                     const Low* __restrict__ y, const float* __restrict__ lse,
                     float2* __restrict__ terms, Low* __restrict__ gqkv,
                     const bool* __restrict__ keep, int T, int heads, float scale, float scale2,
                     float kept) {
    constexpr int ROWS = WARPS * M * 16, TILE = SIDE * D * 2;
    DYNAMIC(shared);
    const int thread = threadIdx.x, lane = thread & 31, own = (thread >> 5) * M * 16;
    const Block block = Block::of<D>(block_id(), ROWS, T, heads);
    const int first = ((T + ROWS - 1) / ROWS - 1 - block.rank) * ROWS, row = first + own;
    const u32 C = heads * D;
    const u32 Q = shared_address(shared), G = Q + ROWS * D * 2, K = G + ROWS * D * 2,
              V = K + 2 * TILE;
    const u32 rows = by_rows<D>(lane), columns = by_columns<D>(lane);
    const int tiles = ((first + ROWS < T ? first + ROWS : T) + SIDE - 1) / SIDE;
    if constexpr (DROP) keep += (size_t)block.head * T * T;

    load_tile<D, ROWS, THREADS>(Q, qkv, block.q, 3 * C, first, T, thread);
    load_tile<D, ROWS, THREADS>(G, g, block.y, C, first, T, thread);
    load_tile<D, SIDE, THREADS>(K, qkv, block.k, 3 * C, 0, T, thread);
    load_tile<D, SIDE, THREADS>(V, qkv, block.v, 3 * C, 0, T, thread);
    cp_commit();
    cp_wait_all();
    __syncthreads();

    u32 q[D / 16][M][4], dy[D / 16][M][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        fragments<D>(q[k], Q + rows + own * 2 * D, k);
        fragments<D>(dy[k], G + rows + own * 2 * D, k);
    }
    float2 term[M][2];  // of the lane's rows, as above
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int r = row + row_of(lane, m, 2 * half);
            const Low* yr = y + block.y + (size_t)(r < T ? r : 0) * C + 2 * (lane & 3);
            float sum = 0.f;
#pragma unroll
            for (int k = 0; k < D / 16; k++)
#pragma unroll
                for (int side = 0; side < 2; side++) {
                    float g0, g1, y0, y1;
                    unpack2<Low>(dy[k][m][2 * side + half], g0, g1);
                    unpack2<Low>(*(const u32*)(yr + k * 16 + side * 8), y0, y1);
                    sum += g0 * y0 + g1 * y1;
                }
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const size_t at = (size_t)block.head * T + r;
            term[m][half] = make_float2(r < T ? -lse[at] : 0.f, -sum);
            if ((lane & 3) == 0 && r < T) terms[at] = term[m][half];
        }

    float dq[M][D / 8][4];
    fill(dq, 0.f);
    for (int j = 0; j < tiles; j++) {
        const u32 now = (j & 1) * TILE, next = TILE - now;
        if (j + 1 < tiles) {
            const int after = (j + 1) * SIDE;
            load_tile<D, SIDE, THREADS>(K + next, qkv, block.k, 3 * C, after, T, thread);
            load_tile<D, SIDE, THREADS>(V + next, qkv, block.v, 3 * C, after, T, thread);
            cp_commit();
        }
#pragma unroll 1
        for (int strip = 0; strip < SIDE; strip += STRIP) {
            const int key = j * SIDE + strip;
            if (key >= row + M * 16) break;
            const u32 Kn = K + now + strip * 2 * D, Vn = V + now + strip * 2 * D;
            float s[M][STRIP / 8][4], dp[M][STRIP / 8][4];
            fill(s, 0.f);
            each(dp, [&](float& x, int m, int, int e) { x = DROP ? 0.f : term[m][e >> 1].y; });
#pragma unroll
            for (int k = 0; k < D / 16; k++) add_product_trans<Low, D>(s, q[k], Kn + columns, k);
#pragma unroll
            for (int k = 0; k < D / 16; k++) add_product_trans<Low, D>(dp, dy[k], Vn + columns, k);
            if (key + STRIP - 1 > row) hide_future<false>(s, row, key, lane);
            if constexpr (DROP)
                each(dp, [&](float& x, int m, int n, int e) {
                    const int q = row + row_of(lane, m, e), k = key + column_of(lane, n, e);
                    x = (keeps(keep, q, k, T) ? x * kept : 0.f) + term[m][e >> 1].y;
                });
            each(dp, [&](float& x, int m, int n, int e) {
                x *= ex2(s[m][n][e] * scale2 + term[m][e >> 1].x);  // ds
            });
#pragma unroll
            for (int k = 0; k < STRIP / 16; k++) {
                u32 ds[M][4];
                pack<Low>(ds, k, [&](int m, int n, int e) { return dp[m][n][e]; });
                add_product<Low, D>(dq, ds, Kn + rows, k);
            }
        }
        cp_wait_all();
        __syncthreads();
    }
    each(dq, [&](float& x, int, int, int) { x *= scale; });
    store_rows<Low, D>(dq, shared, own, gqkv + block.q, 3 * C, row, T, lane);
}

// ---- the gradients of the keys and values: dk = ds.T @ q * scale, dv = p.T @ g
//
// ceil(T / rows) * B * heads blocks, of `rows` keys each. The scores are computed transposed, so
// that p.T and ds.T are left operands: in their tiles the rows are keys and the columns queries.
// Reads the terms, so it runs after attention_backward_q.

template <class Low, int D, int M, int BLOCKS, bool DROP>
__global__ void __launch_bounds__(THREADS, BLOCKS)
attention_backward_kv(const Low* __restrict__ g, const Low* __restrict__ qkv,
                      const float2* __restrict__ terms, Low* __restrict__ gqkv,
                      const bool* __restrict__ keep, int T, int heads, float scale, float scale2,
                     float kept) {
    constexpr int ROWS = WARPS * M * 16, TILE = SIDE * D * 2, TERMS = SIDE * 8;
    DYNAMIC(shared);
    const int thread = threadIdx.x, lane = thread & 31, own = (thread >> 5) * M * 16;
    Block block = Block::of<D>(block_id(), ROWS, T, heads);
    const int first = block.rank * ROWS, row = first + own;
    const u32 C = heads * D;
    const u32 K = shared_address(shared), V = K + ROWS * D * 2, Q = V + ROWS * D * 2,
              G = Q + 2 * TILE, W = G + 2 * TILE;
    const u32 rows = by_rows<D>(lane), columns = by_columns<D>(lane);
    const int tiles = (T + SIDE - 1) / SIDE;
    if constexpr (DROP) keep += (size_t)block.head * T * T;

    const auto load_queries = [&](int j) {
        const u32 half = j & 1;
        load_tile<D, SIDE, THREADS>(Q + half * TILE, qkv, block.q, 3 * C, j * SIDE, T, thread);
        load_tile<D, SIDE, THREADS>(G + half * TILE, g, block.y, C, j * SIDE, T, thread);
        const int r = j * SIDE + thread;
        if (thread < SIDE)
            cp_async8(W + half * TERMS + thread * 8,
                      terms + ((u32)block.head * T + (r < T ? r : 0)), r < T ? 8 : 0);
    };
    load_tile<D, ROWS, THREADS>(K, qkv, block.k, 3 * C, first, T, thread);
    load_tile<D, ROWS, THREADS>(V, qkv, block.v, 3 * C, first, T, thread);
    load_queries(first / SIDE);
    cp_commit();
    cp_wait_all();
    __syncthreads();

    float dk[M][D / 8][4], dv[M][D / 8][4];
    fill(dk, 0.f);
    fill(dv, 0.f);
    for (int j = first / SIDE; j < tiles; j++) {
        if (j + 1 < tiles) {
            load_queries(j + 1);
            cp_commit();
        }
#pragma unroll 1
        for (int strip = 0; strip < SIDE; strip += STRIP) {
            const int query = j * SIDE + strip;
            if (query + STRIP - 1 < row) continue;
            const u32 Qn = Q + (j & 1) * TILE + strip * 2 * D;
            const u32 Gn = G + (j & 1) * TILE + strip * 2 * D;
            const u32 Wn = W + (j & 1) * TERMS + strip * 8 + (lane & 3) * 16;
            // The terms of a lane's two columns of c[m][n]: {x, y} and {z, w}.
            const auto terms_of = [&](int n) { return shared4(Wn + n * 64); };
            float s[M][STRIP / 8][4], dp[M][STRIP / 8][4];
            u32 a[M][4];
            fill(s, 0.f);
#pragma unroll
            for (int n = 0; n < STRIP / 8; n++) {
                const float4 t = terms_of(n);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int e = 0; e < 4; e++) dp[m][n][e] = DROP ? 0.f : e & 1 ? t.w : t.y;
            }
#pragma unroll
            for (int k = 0; k < D / 16; k++) {
                fragments<D>(a, K + rows + own * 2 * D, k);
                add_product_trans<Low, D>(s, a, Qn + columns, k);
            }
            if (query < row + M * 16 - 1) hide_future<true>(s, row, query, lane);
#pragma unroll
            for (int n = 0; n < STRIP / 8; n++) {
                const float4 t = terms_of(n);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        s[m][n][e] = ex2(s[m][n][e] * scale2 + (e & 1 ? t.z : t.x));  // p
            }
#pragma unroll
            for (int k = 0; k < D / 16; k++) {
                fragments<D>(a, V + rows + own * 2 * D, k);
                add_product_trans<Low, D>(dp, a, Gn + columns, k);
            }
            if constexpr (DROP) {  // a dropped weight gets a minus sign, so that p is still known
#pragma unroll
                for (int n = 0; n < STRIP / 8; n++) {
                    const float4 t = terms_of(n);
#pragma unroll
                    for (int m = 0; m < M; m++)
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            const int k = row + row_of(lane, m, e);
                            const bool stays = keeps(keep, query + column_of(lane, n, e), k, T);
                            dp[m][n][e] = (stays ? dp[m][n][e] * kept : 0.f) + (e & 1 ? t.w : t.y);
                            if (!stays) s[m][n][e] = -s[m][n][e];
                        }
                }
            }
#pragma unroll
            for (int k = 0; k < STRIP / 16; k++) {
                pack<Low>(a, k, [&](int m, int n, int e) {
                    return DROP ? fmaxf(s[m][n][e], 0.f) : s[m][n][e];
                });
                add_product<Low, D>(dv, a, Gn + rows, k);
                pack<Low>(a, k, [&](int m, int n, int e) {  // ds
                    return (DROP ? fabsf(s[m][n][e]) : s[m][n][e]) * dp[m][n][e];
                });
                add_product<Low, D>(dk, a, Qn + rows, k);
            }
        }
        cp_wait_all();
        __syncthreads();
    }
    each(dk, [&](float& x, int, int, int) { x *= scale; });
    if constexpr (DROP) each(dv, [&](float& x, int, int, int) { x *= kept; });
    // Found out again, so that it takes no registers in the loop.
    block = Block::of<D>(block_id(), ROWS, opaque(T), heads);
    const int r = block.rank * ROWS + own;
    store_rows<Low, D>(dk, shared, own, gqkv + block.k, 3 * C, r, T, lane);
    store_rows<Low, D>(dv, shared + ROWS * D * 2, own, gqkv + block.v, 3 * C, r, T, lane);
}
