// The cross-entropy of rows of logits, -log(softmax(row)[target]), and its gradient, which is
// softmax(row) - onehot(target).
//
// A block takes a row. One pass finds the largest logit and the sum of the exponentials: each
// thread keeps a maximum and a sum, and rescales the sum where the maximum grows (Milakov and
// Gimelshein, 2018). The gradient needs the logits once more. They are kept in shared memory where
// a row fits (KEEP), so that a row is read once and written once: the memory's bandwidth is what
// bounds this.
//
// The target's own exponential stays out of the sum. Where its probability p is nearly 1, p - 1 is
// then computed from the other probabilities without cancellation, and so is the loss (see exp_rows
// in functional/softmax.py).

#include "arrays.cuh"

// The target as a column, or -1 for one that does not count.
DEV int target_of(i64 target, i64 ignored, int classes) {
    return target == ignored || target < 0 || target >= classes ? -1 : (int)target;
}

// r holds the columns c to c + V: writes `empty` to those that are no class, and `at_target` to the
// target's. Almost all columns are neither, so that two comparisons do for all V.
template <int V>
DEV void replace(float* r, int c, int classes, float empty, int target, float at_target) {
    if (c + V > classes)
#pragma unroll
        for (int j = 0; j < V; j++)
            if (c + j >= classes) r[j] = empty;
    if (target >= c && target < c + V)
#pragma unroll
        for (int j = 0; j < V; j++)
            if (c + j == target) r[j] = at_target;
}

// logits (rows, pitch), of which the first `classes` columns count; targets (rows,).
// Writes loss (rows,) and gradient (rows, pitch), which may be the logits: g (softmax - onehot), and
// 0 in the other columns. A target that is `ignored` or no class has loss and gradient 0. g is
// share[0] times upstream[row * upstream_step]; either is 1 where its pointer is null. A null loss
// or gradient is not wanted.
template <class T, int V, bool KEEP, int THREADS>
__global__ void __launch_bounds__(THREADS, 1024 / THREADS)
cross_entropy(const T* logits, const i64* targets, i64 ignored, const float* share,
              const float* upstream, int upstream_step, float* loss, T* gradient, int classes,
              int pitch) {
    typedef typename Stored<T, V>::type Bits;
    constexpr int AT_ONCE = V == 1 ? 2 : 4;  // accesses under way in each thread
    DYNAMIC(memory);
    T* kept = reinterpret_cast<T*>(memory);
    i64 row = blockIdx.x;
    int target = target_of(targets[row], ignored, classes);
    const T* x = logits + row * pitch;
    T* out = gradient ? gradient + row * pitch : nullptr;
    int first = threadIdx.x * V, step = blockDim.x * V;

    if (target < 0) {
        float zero[V] = {};
        if (loss && threadIdx.x == 0) loss[row] = 0.f;
        if (out)
            for (int c = first; c < pitch; c += step) store<V>(out + c, zero);
        return;
    }

    float hit = wide(x[target]), top = -1e30f, others = 0.f;
    for (int start = first; start < classes; start += AT_ONCE * step) {
        Bits bits[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            int c = start + u * step;
            if (c < classes) bits[u] = *reinterpret_cast<const Bits*>(x + c);
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
            int c = start + u * step;
            if (c >= classes) continue;
            if constexpr (KEEP) *reinterpret_cast<Bits*>(kept + c) = bits[u];
            float r[V], larger = top;
            load<V>(reinterpret_cast<const T*>(&bits[u]), r);
            replace<V>(r, c, classes, -INF, target, -INF);
#pragma unroll
            for (int j = 0; j < V; j++) larger = fmaxf(larger, r[j]);
            others *= Exp<T>::less(top, larger);
            top = larger;
#pragma unroll
            for (int j = 0; j < V; j++) others += Exp<T>::less(r[j], top);
        }
    }
    float largest = fmaxf(row_max<true>(top), hit);
    others = row_sum<true>(others * Exp<T>::less(top, largest));
    float right = hit - largest, sum = others + Exp<T>::less(hit, largest);
    if (loss && threadIdx.x == 0) loss[row] = log1pf(others + expm1f(right)) - right;
    if (!out) return;

    float g = (share ? share[0] : 1.f) * (upstream ? upstream[row * upstream_step] : 1.f);
    float factor = g / sum, at_target = -g * (others / sum);
    const T* from = KEEP ? kept : x;
#pragma unroll 2
    for (int c = first; c < pitch; c += step) {
        float r[V];
        if (c < classes) load<V>(from + c, r);
#pragma unroll
        for (int j = 0; j < V; j++) r[j] = Exp<T>::less(r[j], largest) * factor;
        replace<V>(r, c, classes, 0.f, target, at_target);
        store<V>(out + c, r);
    }
}

// x (size,) times g[0] and share[0], in place; a null share is 1. Where the product is 1, x is not
// even read.
template <class T, int V>
__global__ void __launch_bounds__(256)
multiply(T* x, i64 size, const float* g, const float* share) {
    float factor = g[0] * (share ? share[0] : 1.f);
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (factor == 1.f || at >= size) return;
    float r[V];
    load<V>(x + at, r);
#pragma unroll
    for (int j = 0; j < V; j++) r[j] *= factor;
    store<V>(x + at, r);
}
