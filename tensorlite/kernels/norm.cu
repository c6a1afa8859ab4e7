// Layer norm and RMS norm over rows, and their gradients.
//
//   y = z * weight + bias,  z = (x - mean) * scale,  scale = 1 / sqrt(variance + eps)
//
// RMS norm is the same with a mean of 0 and without bias (CENTRED is false). With h = g * weight,
// where g is the gradient of y, averages taken over the row, and sums over all rows:
//
//   gx = scale * (h - average(h) - z * average(h * z)),  gweight = sum(g * z),  gbias = sum(g)
//
// The time goes into reading x and g and writing y and gx, so each is touched once. A row is kept
// in the registers of blockDim.x threads: a warp, with blockDim.y such rows in a block, or with
// BLOCK all threads of a block. A thread has K times V neighbours, and warps read side by side.
// Rows that are too wide for registers go to the kernels named `wide`, which read them again.
//
// The column sums over rows: each block goes through many rows and keeps sums of its own, which it
// writes to a row of `part`. column_total of elementwise.cu adds these up, always in one order.

#include "arrays.cuh"

// The first column of vector k of this thread.
template <int V> DEV int column(int k) { return (k * (int)blockDim.x + (int)threadIdx.x) * V; }

template <int V> DEV void fill(float* r, float value) {
#pragma unroll
    for (int j = 0; j < V; j++) r[j] = value;
}

// Weights may be absent.
template <int V, class W> DEV void load_or(const W* p, int c, float absent, float* r) {
    if (p) load<V>(p + c, r);
    else fill<V>(r, absent);
}
template <class W> DEV float value_or(const W* p, int c, float absent) { return p ? wide(p[c]) : absent; }

template <class X, class Y, class W, int V, int K, int THREADS, bool BLOCK, bool CENTRED>
__global__ void __launch_bounds__(THREADS)
norm_forward(const X* x, const W* weight, const W* bias, Y* y, float* means, float* scales, i64 rows, int n,
             float eps) {
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float v[K][V], mean = 0.f, sum = 0.f, squares = 0.f;
#pragma unroll
    for (int k = 0; k < K; k++) {
        int c = column<V>(k);
        if (c < n) load<V>(x + row * n + c, v[k]);
        else fill<V>(v[k], 0.f);
    }
    if constexpr (CENTRED) {
#pragma unroll
        for (int k = 0; k < K; k++)
#pragma unroll
            for (int j = 0; j < V; j++) sum += v[k][j];
        mean = row_sum<BLOCK>(sum) / n;
    }
#pragma unroll
    for (int k = 0; k < K; k++)
        if (column<V>(k) < n)
#pragma unroll
            for (int j = 0; j < V; j++) {
                v[k][j] -= mean;
                squares += v[k][j] * v[k][j];
            }
    float scale = rsqrtf(row_sum<BLOCK>(squares) / n + eps);
    if (threadIdx.x == 0) {
        scales[row] = scale;
        if constexpr (CENTRED) means[row] = mean;
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
        int c = column<V>(k);
        if (c < n) {
            float w[V], b[V];
            load_or<V>(weight, c, 1.f, w);
            load_or<V>(bias, c, 0.f, b);
#pragma unroll
            for (int j = 0; j < V; j++) v[k][j] = v[k][j] * scale * w[j] + b[j];
            store<V>(y + row * n + c, v[k]);
        }
    }
}

// A block a row.
template <class X, class Y, class W, bool CENTRED>
__global__ void __launch_bounds__(512)
norm_forward_wide(const X* x, const W* weight, const W* bias, Y* y, float* means, float* scales, int n, float eps) {
    i64 row = blockIdx.x;
    x += row * n;
    y += row * n;
    float mean = 0.f, sum = 0.f, squares = 0.f;
    if constexpr (CENTRED) {
        for (int c = threadIdx.x; c < n; c += blockDim.x) sum += wide(x[c]);
        mean = row_sum<true>(sum) / n;
    }
    for (int c = threadIdx.x; c < n; c += blockDim.x) {
        float centred = wide(x[c]) - mean;
        squares += centred * centred;
    }
    float scale = rsqrtf(row_sum<true>(squares) / n + eps);
    if (threadIdx.x == 0) {
        scales[row] = scale;
        if constexpr (CENTRED) means[row] = mean;
    }
    for (int c = threadIdx.x; c < n; c += blockDim.x)
        y[c] = narrow<Y>((wide(x[c]) - mean) * scale * value_or(weight, c, 1.f) + value_or(bias, c, 0.f));
}

// gx = base + the gradient of x; base and gx may be one array, and base may be absent. Where gx is
// absent, only the column sums are computed, and where part is absent, only gx.
// part is (2, gridDim.x, n), with sums of g * z and sums of g; (1, gridDim.x, n) if not CENTRED.
template <class G, class X, class W, int V, int K, int THREADS, bool BLOCK, bool CENTRED>
__global__ void __launch_bounds__(THREADS)
norm_backward(const G* g, const X* x, const W* weight, const float* means, const float* scales, const X* base,
              X* gx, float* part, i64 rows, int n) {
    constexpr int SUMS = CENTRED ? 2 : 1;
    float sums[SUMS][K][V];
#pragma unroll
    for (int s = 0; s < SUMS; s++)
#pragma unroll
        for (int k = 0; k < K; k++) fill<V>(sums[s][k], 0.f);

    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        float mean = CENTRED ? means[row] : 0.f, scale = scales[row];
        float h[K][V], z[K][V], sum_h = 0.f, sum_hz = 0.f;
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = column<V>(k);
            if (c < n) {
                load<V>(g + row * n + c, h[k]);
                load<V>(x + row * n + c, z[k]);
            } else {
                fill<V>(h[k], 0.f);
                fill<V>(z[k], 0.f);
            }
        }
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = column<V>(k);
            float w[V];
            load_or<V>(c < n ? weight : nullptr, c, 1.f, w);
#pragma unroll
            for (int j = 0; j < V; j++) {
                z[k][j] = (z[k][j] - mean) * scale;
                sums[0][k][j] += h[k][j] * z[k][j];
                if constexpr (CENTRED) sums[1][k][j] += h[k][j];
                h[k][j] *= w[j];
                if constexpr (CENTRED) sum_h += h[k][j];
                sum_hz += h[k][j] * z[k][j];
            }
        }
        if (!gx) continue;
        float average_h = CENTRED ? row_sum<BLOCK>(sum_h) / n : 0.f;
        float average_hz = row_sum<BLOCK>(sum_hz) / n;
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = column<V>(k);
            if (c < n) {
                float already[V];
                load_or<V>(base ? base + row * n : nullptr, c, 0.f, already);
#pragma unroll
                for (int j = 0; j < V; j++)
                    h[k][j] = already[j] + scale * (h[k][j] - average_h - z[k][j] * average_hz);
                store<V>(gx + row * n + c, h[k]);
            }
        }
    }
    if (!part) return;

    if constexpr (BLOCK) {
#pragma unroll
        for (int s = 0; s < SUMS; s++)
#pragma unroll
            for (int k = 0; k < K; k++)
                if (column<V>(k) < n)
                    store<V>(part + ((i64)s * gridDim.x + blockIdx.x) * n + column<V>(k), sums[s][k]);
    } else {  // the rows of the block add up in shared memory, (SUMS, n), one after another
        DYNAMIC(memory);
        float* total = reinterpret_cast<float*>(memory);
        for (int y = 0; y < (int)blockDim.y; y++) {
            if ((int)threadIdx.y == y)
#pragma unroll
                for (int s = 0; s < SUMS; s++)
#pragma unroll
                    for (int k = 0; k < K; k++)
                        if (column<V>(k) < n)
#pragma unroll
                            for (int j = 0; j < V; j++) {
                                float* to = total + s * n + column<V>(k) + j;
                                *to = (y ? *to : 0.f) + sums[s][k][j];
                            }
            __syncthreads();
        }
        for (int s = 0; s < SUMS; s++)
            for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < n; c += blockDim.x * blockDim.y)
                part[((i64)s * gridDim.x + blockIdx.x) * n + c] = total[s * n + c];
    }
}

// A block several rows, one after another; the sums are in `part` from the first row on.
template <class G, class X, class W, bool CENTRED>
__global__ void __launch_bounds__(512)
norm_backward_wide(const G* g, const X* x, const W* weight, const float* means, const float* scales, const X* base,
                   X* gx, float* part, i64 rows, int n) {
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        float mean = CENTRED ? means[row] : 0.f, scale = scales[row], sum_h = 0.f, sum_hz = 0.f;
        for (int c = threadIdx.x; c < n; c += blockDim.x) {
            float slope = wide(g[row * n + c]), z = (wide(x[row * n + c]) - mean) * scale;
            float h = slope * value_or(weight, c, 1.f);
            sum_h += h;
            sum_hz += h * z;
            if (part) {
                bool first = row == blockIdx.x;
                float* to = part + (i64)blockIdx.x * n + c;
                *to = (first ? 0.f : *to) + slope * z;
                if constexpr (CENTRED) {
                    to += (i64)gridDim.x * n;
                    *to = (first ? 0.f : *to) + slope;
                }
            }
        }
        if (!gx) continue;
        float average_h = CENTRED ? row_sum<true>(sum_h) / n : 0.f;
        float average_hz = row_sum<true>(sum_hz) / n;
        for (int c = threadIdx.x; c < n; c += blockDim.x) {
            i64 i = row * n + c;
            float h = wide(g[i]) * value_or(weight, c, 1.f), z = (wide(x[i]) - mean) * scale;
            gx[i] = narrow<X>((base ? wide(base[i]) : 0.f) + scale * (h - average_h - z * average_hz));
        }
    }
}
