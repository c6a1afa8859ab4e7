// tensorlite/kernels/device.cuh for the emulator: the same names, in plain C++.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#define DEV inline
#define INF __int_as_float(0x7f800000)
#define LOG2E 1.4426950408889634f

#define DYNAMIC(name) unsigned char* name = emulator_dynamic

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

DEV float wide(float x) { return x; }
DEV float wide(bf16 x) { return bf16_to_float(x.bits); }
DEV float wide(f16 x) { return f16_to_float(x.bits); }

template <class T> inline T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline bf16 narrow<bf16>(float x) { return {float_to_bf16(x)}; }
template <> inline f16 narrow<f16>(float x) { return {float_to_f16(x)}; }

template <class T> DEV u32 pack2(float low, float high) {
    return (u32)narrow<T>(low).bits | (u32)narrow<T>(high).bits << 16;
}
template <class T> DEV void unpack2(u32 x, float& low, float& high) {
    low = wide(T{(u16)(x & 0xffffu)});
    high = wide(T{(u16)(x >> 16)});
}

DEV float ex2(float x) { return exp2f(x); }
DEV float rcp(float x) { return 1.0f / x; }
DEV float root(float x) { return sqrtf(x); }

template <class T> DEV void global(T* p) {}
DEV int opaque(int x) { return x; }
DEV int block_id() { return blockIdx.x; }

DEV u32 shared_address(const void* p) { return emulator_shared_address(p); }
DEV void cp_async16(u32 to, const void* from, int bytes) { emulator_copy(to, from, 16, bytes); }
DEV void cp_async8(u32 to, const void* from, int bytes) { emulator_copy(to, from, 8, bytes); }
DEV void cp_commit() { emulator_copy_commit(); }
DEV void cp_wait_all() { emulator_copy_wait(); }
DEV float4 shared4(u32 address) {
    float4 x;
    emulator_shared4(&x.x, address);
    return x;
}

DEV void ldmatrix4(u32 (&r)[4], u32 address) { emulator_load_matrix(r, address, false); }
DEV void ldmatrix4_trans(u32 (&r)[4], u32 address) { emulator_load_matrix(r, address, true); }
template <class T> inline void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <> inline void mma<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulator_multiply(c, a, b0, b1, true);
}
template <> inline void mma<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulator_multiply(c, a, b0, b1, false);
}
