// Sums of two arrays, conversions, dropout, and sums over columns. Memory bounds them all.

#include "flat.cuh"

template <class X, class Y, class Z, int V>
__global__ void __launch_bounds__(256) add(const X* x, const Y* y, Z* z, i64 size) {
    map<V>([](const float* in, float* out) { out[0] = in[0] + in[1]; }, size, Results<Z, 1>{z}, x, y);
}

template <class X, class Y, class Z, int V>
__global__ void __launch_bounds__(256) add_repeated(const X* x, const Y* y, Z* z, i64 size, i64 period) {
    map<V>([](const float* in, float* out) { out[0] = in[0] + in[1]; }, size, Results<Z, 1>{z}, x,
           Repeated<Y>{y, period});
}

template <class X, class Z, int V>
__global__ void __launch_bounds__(256) cast(const X* x, Z* z, i64 size) {
    map<V>([](const float* in, float* out) { out[0] = in[0]; }, size, Results<Z, 1>{z}, x);
}

template <class X, int V>
__global__ void __launch_bounds__(256) drop(const X* x, const unsigned char* keep, X* z, float factor, i64 size) {
    map<V>([factor](const float* in, float* out) { out[0] = in[0] * factor * in[1]; }, size, Results<X, 1>{z}, x,
           Mask{keep});
}

// ---- sums over columns, without atomics: first of some of the rows, then of these sums

// g (rows, n) -> part (gridDim.y, n). A block is (32, 8) threads: 32 vectors of columns, 8 rows at a
// time; the blocks of blockIdx.y go through rows of their own.
template <class G, int V>
__global__ void __launch_bounds__(256) column_parts(const G* g, float* part, i64 rows, int n) {
    __shared__ float sums[8][32 * V];
    int first = blockIdx.x * 32 * V, c = first + threadIdx.x * V;
    float sum[V];
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] = 0.f;
    if (c < n)
#pragma unroll 2
        for (i64 row = (i64)blockIdx.y * 8 + threadIdx.y; row < rows; row += (i64)gridDim.y * 8) {
            float v[V];
            load<V>(g + row * n + c, v);
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] += v[j];
        }
#pragma unroll
    for (int j = 0; j < V; j++) sums[threadIdx.y][threadIdx.x * V + j] = sum[j];
    __syncthreads();
    for (int k = threadIdx.y * 32 + threadIdx.x; k < 32 * V && first + k < n; k += 256) {
        float total = 0.f;
#pragma unroll
        for (int y = 0; y < 8; y++) total += sums[y][k];
        part[(i64)blockIdx.y * n + first + k] = total;
    }
}

// part (gridDim.y, count, n) -> total (gridDim.y, n). A block is (32, 32) threads: it adds rows 32
// apart, and then turns the square of sums on its side, so that a warp adds up one column.
__global__ void __launch_bounds__(1024) column_total(const float* part, float* total, int count, int n) {
    __shared__ float sums[32][33];  // 33, so that the 32 reads of a column are from different banks
    int c = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (c < n)
        for (int p = threadIdx.y; p < count; p += 32) sum += part[((i64)blockIdx.y * count + p) * n + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    c = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && c < n) total[(i64)blockIdx.y * n + c] = sum;
}
