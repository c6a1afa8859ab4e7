// Functions of single elements, over arrays that are taken as one long row.
//
// These are bound by memory alone. A thread has two vectors of V neighbours, which lie 256 vectors
// apart, and reads both before it computes, so that more reads are under way at once.

#include "arrays.cuh"

// y repeated along x: element i of it is y[i % period]. V divides the period.
template <class T> struct Repeated {
    const T* p;
    i64 period;
};

// A boolean array, as numbers 0 and 1.
struct Mask {
    const unsigned char* p;
};

// V neighbours of an input, from element i on.
template <int V, class T> DEV void load_at(const T* p, i64 i, float* r) { load<V>(p + i, r); }
template <int V, class T> DEV void load_at(Repeated<T> a, i64 i, float* r) { load<V>(a.p + i % a.period, r); }
template <int V> DEV void load_at(Mask a, i64 i, float* r) {
    if constexpr (V == 1) r[0] = a.p[i];
    else
#pragma unroll
        for (int k = 0; k < V / 4; k++) {
            u32 four = reinterpret_cast<const u32*>(a.p + i)[k];
#pragma unroll
            for (int j = 0; j < 4; j++) r[4 * k + j] = (float)(four >> 8 * j & 1u);
        }
}

// The arrays that results go to.
template <class Z, int N> struct Results {
    Z* p[N];
};

// v (IN, V) -> element i and its neighbours of the results
template <int V, int IN, int OUT, class Z, class F>
DEV void apply(F f, const float (&v)[IN][V], Results<Z, OUT> to, i64 i) {
    float z[OUT][V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        float in[IN], out[OUT];
#pragma unroll
        for (int k = 0; k < IN; k++) in[k] = v[k][j];
        f(in, out);
#pragma unroll
        for (int k = 0; k < OUT; k++) z[k][j] = out[k];
    }
#pragma unroll
    for (int k = 0; k < OUT; k++) store<V>(to.p[k] + i, z[k]);
}

// For each element: f(inputs, outputs), which are arrays of floats, one for each of `from` and `to`.
template <int V, int OUT, class Z, class F, class... From>
DEV void map(F f, i64 size, Results<Z, OUT> to, From... from) {
    constexpr int IN = sizeof...(From);
    float v[2][IN][V];
    i64 at[2];
#pragma unroll
    for (int u = 0; u < 2; u++) {
        int k = 0;
        at[u] = (((i64)blockIdx.x * 2 + u) * blockDim.x + threadIdx.x) * V;
        if (at[u] + V <= size) (load_at<V>(from, at[u], v[u][k++]), ...);
    }
#pragma unroll
    for (int u = 0; u < 2; u++) {
        if (at[u] + V <= size) apply(f, v[u], to, at[u]);
        else  // the end of the arrays, fewer than V
#pragma unroll 1
            for (i64 i = at[u]; i < size; i++) {
                float one[IN][1];
                int k = 0;
                (load_at<1>(from, i, one[k++]), ...);
                apply(f, one, to, i);
            }
    }
}
