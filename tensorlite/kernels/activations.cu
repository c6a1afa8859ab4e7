// GELU, SiLU and SwiGLU, and their gradients. Memory bounds them: the backward kernels read x again
// and compute the slope from it, which is quicker than to keep the slope beside x.
//
// Both functions are x * sigmoid(w(x)), with w = x for SiLU and w = 2 sqrt(2 / pi) (x + 0.044715 x^3)
// for GELU, of which (1 + tanh(w / 2)) / 2 = sigmoid(w). With s = sigmoid(w), the slope is
// s + x s (1 - s) w'(x). T is the type of the stored numbers, which says how exact e^x has to be.

#include "flat.cuh"

struct Silu {
    static DEV float inner(float x) { return x; }
    static DEV float inner_slope(float x) { return 1.f; }
};
struct Gelu {
    static DEV float inner(float x) { return 1.5957691216057308f * x * (1.f + 0.044715f * x * x); }
    static DEV float inner_slope(float x) { return 1.5957691216057308f * (1.f + 0.134145f * x * x); }
};

template <class F, class T> DEV float value(float x) {
    return x * rcp(1.f + Exp<T>::of(-F::inner(x)));  // where e^x is infinite, sigmoid is 0
}
template <class F, class T> DEV float slope(float x) {
    x = x < -80.f ? -80.f : x > 80.f ? 80.f : x;  // the slope is 0 or 1 there, and e^80 is still a number
    float e = Exp<T>::of(fminf(-F::inner(x), 80.f)), s = rcp(1.f + e);
    return s + x * s * (e * s) * F::inner_slope(x);  // e * s is 1 - s, exact also where s is near 1
}

template <class F, class X, int V>
__global__ void __launch_bounds__(256) activation(const X* x, X* y, i64 size) {
    map<V>([](const float* in, float* out) { out[0] = value<F, X>(in[0]); }, size, Results<X, 1>{y}, x);
}

template <class F, class G, class X, int V>
__global__ void __launch_bounds__(256) activation_backward(const G* g, const X* x, X* gx, i64 size) {
    map<V>([](const float* in, float* out) { out[0] = in[0] * slope<F, X>(in[1]); }, size, Results<X, 1>{gx}, g, x);
}

// y = silu(gate) * up
template <class X, int V>
__global__ void __launch_bounds__(256) swiglu(const X* gate, const X* up, X* y, i64 size) {
    map<V>([](const float* in, float* out) { out[0] = value<Silu, X>(in[0]) * in[1]; }, size, Results<X, 1>{y},
           gate, up);
}

template <class G, class X, int V>
__global__ void __launch_bounds__(256)
swiglu_backward(const G* g, const X* gate, const X* up, X* ggate, X* gup, i64 size) {
    map<V>(
        [](const float* in, float* out) {
            out[0] = in[0] * in[2] * slope<Silu, X>(in[1]);
            out[1] = in[0] * value<Silu, X>(in[1]);
        },
        size, Results<X, 2>{ggate, gup}, g, gate, up);
}
