// As much of CUDA C++ as the kernels use, for g++, which includes this before their source.

#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "half.h"

// ---- the language

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Variables of the block, where the emulator finds them; its threads all run in one thread of the
// system. `used`, because others than the compiler sees may write to them.
#define __shared__ __attribute__((used)) static thread_local

struct uint3 { unsigned x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern const uint3 threadIdx, blockIdx, blockDim, gridDim;  // constant for a thread

// ---- threads together: machine.cpp

extern "C" {
void emulator_block_barrier();
void emulator_warp_barrier(unsigned mask);
uint64_t emulator_shuffle(unsigned mask, uint64_t value, int source);
unsigned emulator_vote(unsigned mask, int predicate);
void emulator_load_matrix(unsigned* r, unsigned address, bool transposed);
void emulator_multiply(float* c, const unsigned* a, unsigned b0, unsigned b1, bool bf16);
void emulator_copy(unsigned to, const void* from, int size, int read);
void emulator_copy_commit();
void emulator_copy_wait();
void emulator_shared4(float* to, unsigned address);
unsigned emulator_shared_address(const void* pointer);
void emulator_atomic(void* address, int size);
}
extern unsigned char emulator_dynamic[];

static inline void __syncthreads() { emulator_block_barrier(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator_warp_barrier(mask); }
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return emulator_vote(mask, predicate);
}
static inline int __any_sync(unsigned mask, int predicate) {
    return emulator_vote(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate) {
    return emulator_vote(mask, !predicate) == 0;
}

template <class T> static inline T emulator_shuffled(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    if constexpr (sizeof(T) == 4)
        return __builtin_bit_cast(
            T, (uint32_t)emulator_shuffle(mask, __builtin_bit_cast(uint32_t, value), source));
    else
        return __builtin_bit_cast(
            T, emulator_shuffle(mask, __builtin_bit_cast(uint64_t, value), source));
}
static inline int emulator_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}
// A lane whose source would lie beyond its group of `width` lanes keeps its own value.
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    int lane = emulator_lane(), source = lane ^ lanes;
    return emulator_shuffled(mask, value, source / width <= lane / width ? source : lane);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, int lanes, int width = 32) {
    int lane = emulator_lane();
    return emulator_shuffled(mask, value, lane % width + lanes < width ? lane + lanes : lane);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, int lanes, int width = 32) {
    int lane = emulator_lane();
    return emulator_shuffled(mask, value, lane % width >= lanes ? lane - lanes : lane);
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = emulator_lane();
    return emulator_shuffled(mask, value, lane / width * width + (source & (width - 1)));
}

// ---- atomic operations on whole numbers

template <class T, class F>
__attribute__((no_sanitize("thread"))) static T emulator_atomically(T* p, F f) {
    emulator_atomic(p, sizeof(T));
    T old = *p;
    *p = f(old);
    return old;
}
template <class T> static inline T atomicAdd(T* p, T x) {
    return emulator_atomically(p, [=](T y) { return y + x; });
}
template <class T> static inline T atomicMin(T* p, T x) {
    return emulator_atomically(p, [=](T y) { return y < x ? y : x; });
}
template <class T> static inline T atomicMax(T* p, T x) {
    return emulator_atomically(p, [=](T y) { return x < y ? y : x; });
}

// ---- arithmetic

static inline float __int_as_float(int x) { return float_of_bits(x); }
static inline float __uint_as_float(unsigned x) { return float_of_bits(x); }
static inline unsigned __float_as_uint(float x) { return bits_of_float(x); }
static inline int __float_as_int(float x) { return bits_of_float(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned __int128)x * y >> 64;
}
static inline unsigned __umulhi(unsigned x, unsigned y) { return (uint64_t)x * y >> 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T> static inline T min(T x, T y) { return y < x ? y : x; }
template <class T> static inline T max(T x, T y) { return x < y ? y : x; }
template <class T> static inline T __ldg(const T* p) { return *p; }

// By way of double precision: the same bits on every processor, to an ulp as on a GPU.
#define expf(x) ((float)exp((double)(x)))
#define exp2f(x) ((float)exp2((double)(x)))
#define logf(x) ((float)log((double)(x)))
#define log1pf(x) ((float)log1p((double)(x)))
#define log2f(x) ((float)log2((double)(x)))
#define tanhf(x) ((float)tanh((double)(x)))
#define erff(x) ((float)erf((double)(x)))
#define powf(x, y) ((float)pow((double)(x), (double)(y)))
#define cosf(x) ((float)cos((double)(x)))
#define sinf(x) ((float)sin((double)(x)))
#define __expf(x) expf(x)
#define __logf(x) logf(x)
