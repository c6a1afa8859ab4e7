// A step of writing text: the next position of each of a few texts, of which all earlier positions
// have their keys and values in a cache.
//
// Every number of the weights and of the cache is read once and used for a few multiplications, so
// all kernels here are bound by memory, and, for one text, by the time that the loads take to come
// back. So many loads of 16 bytes are on their way at once, and what is small (the norm of the
// residual stream, a bias, GELU) is done by the product that needs it, again by each block.
//
// T is the storage of activations, weights and cache; the residual stream is float32, as are all
// sums. Rows are texts: B of them, at most 8.

#include "arrays.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int STORE = 0, GELU = 1, ADD = 2;  // what a product does with its result

template <class T> DEV void widen(uint4 q, float* r) {  // the 16 / sizeof(T) numbers of 16 bytes
    if constexpr (sizeof(T) == 4) {
        r[0] = __uint_as_float(q.x); r[1] = __uint_as_float(q.y);
        r[2] = __uint_as_float(q.z); r[3] = __uint_as_float(q.w);
    } else {
        unpack2<T>(q.x, r[0], r[1]); unpack2<T>(q.y, r[2], r[3]);
        unpack2<T>(q.z, r[4], r[5]); unpack2<T>(q.w, r[6], r[7]);
    }
}

// GELU by its tanh approximation: 0.5 (1 + tanh(z)) is 1 / (1 + exp(-2z)).
DEV float gelu(float x) {
    float z = 0.7978845608028654f * x * (1.f + 0.044715f * x * x);
    return x * rcp(1.f + ex2(fminf(-2.f * z * LOG2E, 120.f)));
}

// ---- products of a few rows

// What a product reads, x (B, K), as float32 in shared memory: of type T as it is, or, with NORM,
// the layer norm of a float32 stream.
template <class T, int B, bool NORM>
DEV void read_rows(const void* x, const float* weight, const float* bias, float eps, int K, float* rows) {
    if constexpr (!NORM)
        for (int i = threadIdx.x; i < B * K; i += THREADS) rows[i] = wide(((const T*)x)[i]);
    else
#pragma unroll
        for (int b = 0; b < B; b++) {  // each thread writes and reads its own numbers only
            const float* from = (const float*)x + (i64)b * K;
            float* row = rows + b * K;
            float sum = 0.f, squares = 0.f;
            for (int i = threadIdx.x; i < K; i += THREADS) sum += row[i] = from[i];
            float mean = row_sum<true>(sum) / K;
            for (int i = threadIdx.x; i < K; i += THREADS) {
                row[i] -= mean;
                squares += row[i] * row[i];
            }
            float scale = 1.f / sqrtf(row_sum<true>(squares) / K + eps);
            for (int i = threadIdx.x; i < K; i += THREADS)
                row[i] = row[i] * scale * (weight ? weight[i] : 1.f) + (bias ? bias[i] : 0.f);
        }
    __syncthreads();
}

// out (B, N) = f(x (B, K)) @ weight (K, N) + bias; N is a multiple of V = 16 / sizeof(T).
//
// A block owns SIDE * V columns. SIDE threads side by side read 16 bytes each of a row of the
// weight, and the 256 / SIDE slots of such threads share the rows. Each thread has the next AHEAD
// rows on their way; the first of them are asked for before x is there.
template <class T, int B, bool NORM, int OUT, int SIDE>
__global__ void __launch_bounds__(THREADS)
few_rows(const void* x, const float* norm_weight, const float* norm_bias, float eps,
         const T* weight, const float* bias, void* out, int K, int N) {
    constexpr int V = 16 / sizeof(T), SLOTS = THREADS / SIDE, AHEAD = 8;
    __shared__ float parts[WARPS][B][SIDE * V];
    DYNAMIC(dynamic);
    float* rows = (float*)dynamic;
    int side = threadIdx.x % SIDE, slot = threadIdx.x / SIDE;
    int column = (blockIdx.x * SIDE + side) * V;
    auto fetch = [&](int k) {
        bool there = k < K && column < N;
        return there ? *(const uint4*)(weight + (i64)k * N + column) : make_uint4(0, 0, 0, 0);
    };
    uint4 coming[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) coming[a] = fetch(slot + a * SLOTS);
    read_rows<T, B, NORM>(x, norm_weight, norm_bias, eps, K, rows);

    float sum[B][V] = {};
    for (int first = slot; first < K; first += AHEAD * SLOTS)
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            int k = first + a * SLOTS;
            float w[V];
            widen<T>(coming[a], w);
            coming[a] = fetch(k + AHEAD * SLOTS);
#pragma unroll
            for (int b = 0; b < B; b++) {
                float factor = rows[b * K + min(k, K - 1)];  // from K on, w is 0
#pragma unroll
                for (int j = 0; j < V; j++) sum[b][j] += factor * w[j];
            }
        }

    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int b = 0; b < B; b++)
#pragma unroll
        for (int j = 0; j < V; j++) {
#pragma unroll
            for (int o = 16; o >= SIDE; o >>= 1)
                sum[b][j] += __shfl_xor_sync(0xffffffffu, sum[b][j], o);
            if (lane < SIDE) parts[warp][b][lane * V + j] = sum[b][j];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < B * SIDE * V; i += THREADS) {
        int b = i / (SIDE * V), c = i % (SIDE * V), n = blockIdx.x * SIDE * V + c;
        if (n >= N) continue;
        float y = bias ? bias[n] : 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) y += parts[w][b][c];
        i64 at = (i64)b * N + n;
        if constexpr (OUT == STORE) ((T*)out)[at] = narrow<T>(y);
        if constexpr (OUT == GELU) ((T*)out)[at] = narrow<T>(gelu(y));
        if constexpr (OUT == ADD) ((float*)out)[at] += y;
    }
}

// logits (B, N) = layer norm of the stream (B, K) @ table (N, K) transposed; K is a multiple of V.
// A warp multiplies R rows of the table at a time, whose sums are then those of its lanes.
template <class T, int B>
__global__ void __launch_bounds__(THREADS)
few_rows_head(const float* stream, const float* norm_weight, const float* norm_bias, float eps,
              const T* table, float* logits, int K, int N) {
    constexpr int V = 16 / sizeof(T), R = B <= 4 ? 4 : 2;
    DYNAMIC(dynamic);
    float* rows = (float*)dynamic;
    read_rows<T, B, true>(stream, norm_weight, norm_bias, eps, K, rows);
    int lane = threadIdx.x & 31, warp = blockIdx.x * WARPS + (threadIdx.x >> 5);
    for (int n = warp * R; n < N; n += gridDim.x * WARPS * R) {
        float sum[B][R] = {};
#pragma unroll 2
        for (int k = lane * V; k < K; k += 32 * V) {
            uint4 coming[R];
#pragma unroll
            for (int r = 0; r < R; r++)
                coming[r] = *(const uint4*)(table + (i64)min(n + r, N - 1) * K + k);
#pragma unroll
            for (int r = 0; r < R; r++) {
                float w[V];
                widen<T>(coming[r], w);
#pragma unroll
                for (int b = 0; b < B; b++)
#pragma unroll
                    for (int j = 0; j < V; j++) sum[b][r] += rows[b * K + k + j] * w[j];
            }
        }
#pragma unroll
        for (int b = 0; b < B; b++)
#pragma unroll
            for (int r = 0; r < R; r++) {
                float y = warp_sum(sum[b][r]);
                if (lane == 0 && n + r < N) logits[(i64)b * N + n + r] = y;
            }
    }
}

// stream (B, C) = the embedding of each text's token + that of the place where it stands.
__global__ void __launch_bounds__(THREADS)
embed(const int* token, const int* slot, const int* begin, const float* tokens,
      const float* places, float* stream, int C) {
    i64 b = blockIdx.x, id = token[b], place = slot[b] - begin[b];
    for (int c = threadIdx.x; c < C; c += THREADS)
        stream[b * C + c] = tokens[id * C + c] + places[place * C + c];
}

// ---- attention of one new position

// y (B, nh, D): of each text and head, the values up to `slot`, weighted by softmax of the match
// with the query. The new key and value are written to the cache, (B, nkv, size, D), at `slot`;
// positions before `begin`, and those that a window of the last few leaves out, are not seen. q, k
// and v have rows of `q_row` and `kv_row` numbers. A block for each head of each text.
//
// Next to each other, LANES threads hold V numbers of a key each; the block's groups of so many
// threads take the positions in turns, AHEAD at a time. Each group keeps the largest score, the sum
// of exp(score - largest), and the values weighted by that (the online softmax); at the end these
// are brought together, within a warp and then among the warps.
template <class T, int D>
__global__ void __launch_bounds__(2 * THREADS)
attend(const T* q, const T* k, const T* v, int q_row, int kv_row, T* keys, T* values, T* y,
       const int* slot, const int* begin, int nh, int nkv, int size, int window, float scale) {
    constexpr int V = 16 / sizeof(T), LANES = D <= V ? 1 : D <= 2 * V ? 2 : D <= 4 * V ? 4
        : D <= 8 * V ? 8 : D <= 16 * V ? 16 : 32;
    static_assert(D <= 32 * V, "a head is read by the lanes of one warp");
    constexpr int GROUPS = 2 * THREADS / LANES, AHEAD = 2;
    __shared__ float sums[2 * WARPS][D], largests[2 * WARPS], totals[2 * WARPS];
    int b = blockIdx.y, h = blockIdx.x, h_kv = h / (nh / nkv);
    int group = threadIdx.x / LANES, d = threadIdx.x % LANES * V;
    int last = slot[b], first = max(begin[b], window ? last - window + 1 : 0);
    bool mine = d < D, writes = h % (nh / nkv) == 0 && mine;
    const uint4 zeros = make_uint4(0, 0, 0, 0);
    const T* new_key = k + (i64)b * kv_row + h_kv * D + d;
    const T* new_value = v + (i64)b * kv_row + h_kv * D + d;
    i64 head = ((i64)b * nkv + h_kv) * size;

    float query[V], sum[V] = {}, largest = -INF, total = 0.f;
    widen<T>(mine ? *(const uint4*)(q + (i64)b * q_row + h * D + d) : zeros, query);
    for (int from = first; from <= last; from += GROUPS * AHEAD) {
        uint4 key[AHEAD], value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            int at = from + a * GROUPS + group;
            bool there = at <= last && mine;
            i64 place = (head + at) * D + d;
            key[a] = there ? *(const uint4*)(at == last ? new_key : keys + place) : zeros;
            value[a] = there ? *(const uint4*)(at == last ? new_value : values + place) : zeros;
            if (at == last && writes) {
                *(uint4*)(keys + place) = key[a];
                *(uint4*)(values + place) = value[a];
            }
        }
        float score[AHEAD], before = largest;
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            float r[V], match = 0.f;
            widen<T>(key[a], r);
#pragma unroll
            for (int j = 0; j < V; j++) match += query[j] * r[j];
#pragma unroll
            for (int o = 1; o < LANES; o <<= 1) match += __shfl_xor_sync(0xffffffffu, match, o);
            score[a] = from + a * GROUPS + group <= last ? match * scale : -INF;
            largest = fmaxf(largest, score[a]);
        }
        if (largest > -INF) {
            float shrink = Exp<T>::less(before, largest);
            total *= shrink;
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] *= shrink;
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                float r[V], weight = Exp<T>::less(score[a], largest);
                widen<T>(value[a], r);
                total += weight;
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] += weight * r[j];
            }
        }
    }

    // A group without a position has the largest score -inf: its sums, which are 0, stay so.
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float warps_largest = warp_max(largest);
    float shrink = largest > -INF ? Exp<T>::less(largest, warps_largest) : 0.f;
    total *= shrink;
#pragma unroll
    for (int o = LANES; o < 32; o <<= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
#pragma unroll
    for (int j = 0; j < V; j++) {
        sum[j] *= shrink;
#pragma unroll
        for (int o = LANES; o < 32; o <<= 1) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], o);
        if (lane < LANES && mine) sums[warp][d + j] = sum[j];
    }
    if (lane == 0) {
        largests[warp] = warps_largest;
        totals[warp] = total;
    }
    __syncthreads();
    largest = warp_max(lane < 2 * WARPS ? largests[lane] : -INF);
    for (int c = threadIdx.x; c < D; c += 2 * THREADS) {
        float x = 0.f, all = 0.f;
#pragma unroll
        for (int w = 0; w < 2 * WARPS; w++) {
            float share = largests[w] > -INF ? Exp<T>::less(largests[w], largest) : 0.f;
            x += sums[w][c] * share;
            all += totals[w] * share;
        }
        y[((i64)b * nh + h) * D + c] = narrow<T>(x / all);
    }
}
