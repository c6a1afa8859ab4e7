// Rotary positions: pairs of numbers turned by angles.
//
// A pair is element c of the first half of a head's vector and element c of the second half:
// (a, b) -> (a cos - b sin, a sin + b cos). The gradient is turned back, by the opposite angle.
// Memory bounds it. A thread has V neighbouring pairs: it reads and writes two vectors.

#include "arrays.cuh"

// x (batch, heads, T, 2 half), of any strides but for its last axis, -> y, contiguous.
// cosines and sines are (T, half), or (batch, T, half) with an angle_stride of T * half.
// direction is 1, or -1 for the gradient. count is the number of threads that have something to do.
template <class X, int V>
__global__ void __launch_bounds__(256)
rope(const X* x, const float* cosines, const float* sines, X* y, i64 count, int heads, int T, int half,
     i64 batch_stride, i64 head_stride, i64 place_stride, i64 angle_stride, float direction) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int vectors = half / V, c = (int)(i % vectors) * V;
    i64 vector = i / vectors;  // which of the batch * heads * T vectors
    i64 place = vector % T, head = vector / T % heads, text = vector / T / heads;
    const X* from = x + text * batch_stride + head * head_stride + place * place_stride + c;
    i64 angle = text * angle_stride + place * half + c;
    float a[V], b[V], cosine[V], sine[V];
    load<V>(from, a);
    load<V>(from + half, b);
    load<V>(cosines + angle, cosine);
    load<V>(sines + angle, sine);
#pragma unroll
    for (int j = 0; j < V; j++) {
        float turned = a[j] * cosine[j] - b[j] * sine[j] * direction;
        b[j] = a[j] * sine[j] * direction + b[j] * cosine[j];
        a[j] = turned;
    }
    X* to = y + vector * 2 * half + c;
    store<V>(to, a);
    store<V>(to + half, b);
}
