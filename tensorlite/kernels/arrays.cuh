// Reading and writing neighbours at once, and sums over a warp or a block.

#include "device.cuh"

// V neighbours from storage to float registers and back. V is 1, 4 or 8, and p is aligned to
// 16 bytes, or to V elements where these are fewer.
template <int V> DEV void load(const float* p, float* r) {
    if constexpr (V == 1) r[0] = p[0];
    else
#pragma unroll
        for (int i = 0; i < V / 4; i++) {
            float4 q = reinterpret_cast<const float4*>(p)[i];
            r[4 * i] = q.x; r[4 * i + 1] = q.y; r[4 * i + 2] = q.z; r[4 * i + 3] = q.w;
        }
}
template <int V, class T> DEV void load(const T* p, float* r) {
    if constexpr (V == 8) {
        uint4 q = *reinterpret_cast<const uint4*>(p);
        unpack2<T>(q.x, r[0], r[1]); unpack2<T>(q.y, r[2], r[3]);
        unpack2<T>(q.z, r[4], r[5]); unpack2<T>(q.w, r[6], r[7]);
    } else if constexpr (V == 4) {
        uint2 q = *reinterpret_cast<const uint2*>(p);
        unpack2<T>(q.x, r[0], r[1]); unpack2<T>(q.y, r[2], r[3]);
    } else r[0] = wide(p[0]);
}
template <int V> DEV void store(float* p, const float* r) {
    if constexpr (V == 1) p[0] = r[0];
    else
#pragma unroll
        for (int i = 0; i < V / 4; i++)
            reinterpret_cast<float4*>(p)[i] = make_float4(r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
}
template <int V, class T> DEV void store(T* p, const float* r) {
    if constexpr (V == 8)
        *reinterpret_cast<uint4*>(p) = make_uint4(
            pack2<T>(r[0], r[1]), pack2<T>(r[2], r[3]), pack2<T>(r[4], r[5]), pack2<T>(r[6], r[7]));
    else if constexpr (V == 4)
        *reinterpret_cast<uint2*>(p) = make_uint2(pack2<T>(r[0], r[1]), pack2<T>(r[2], r[3]));
    else p[0] = narrow<T>(r[0]);
}

// 16 bytes of T as they are stored, or one element: what a thread holds of several rows at once, and
// unpacks by load<V>(reinterpret_cast<const T*>(&stored), r) when it needs the numbers.
template <class T, int V> struct Stored { typedef uint4 type; };
template <class T> struct Stored<T, 1> { typedef T type; };

// e^x and e^(x - m): to an ulp for float32 storage, by the hardware's approximation for 16 bits.
template <class T> struct Exp {
    static DEV float of(float x) { return ex2(x * LOG2E); }
    static DEV float less(float x, float m) { return ex2(x * LOG2E - m * LOG2E); }
};
template <> struct Exp<float> {
    static DEV float of(float x) { return expf(x); }
    static DEV float less(float x, float m) { return expf(x - m); }
};

// The sum and the largest of a warp's values, in every lane.
DEV float warp_sum(float v) {
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
DEV float warp_max(float v) {
#pragma unroll
    for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

// The same over threadIdx.x: a warp, or with BLOCK all warps of a block whose blockDim.y is 1.
template <bool BLOCK> DEV float row_sum(float v) {
    v = warp_sum(v);
    if constexpr (BLOCK) {
        __shared__ float part[32];
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
        __syncthreads();
        if (lane == 0) part[warp] = v;
        __syncthreads();
        v = warp_sum(lane < warps ? part[lane] : 0.f);
    }
    return v;
}
template <bool BLOCK> DEV float row_max(float v) {
    v = warp_max(v);
    if constexpr (BLOCK) {
        __shared__ float part[32];
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
        __syncthreads();
        if (lane == 0) part[warp] = v;
        __syncthreads();
        v = warp_max(lane < warps ? part[lane] : -INF);
    }
    return v;
}
