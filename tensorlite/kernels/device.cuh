// What only the hardware can say: types, instructions without a name in C++, tensor cores.
//
// All inline assembly of this folder is here. The tests execute the kernels on a CPU, with another
// version of this one file (tests/emulator/device.cuh), in which each function is plain C++.

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#define DEV __device__ __forceinline__
#define INF __int_as_float(0x7f800000)
#define LOG2E 1.4426950408889634f

// The dynamic shared memory of a block, as `unsigned char name[]`.
#define DYNAMIC(name) extern __shared__ __align__(1024) unsigned char name[]

// ---- numbers of 16 bits: how activations are stored; arithmetic is in float32

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

DEV float wide(float x) { return x; }
DEV float wide(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEV float wide(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// Two numbers rounded to nearest even and side by side; `low` is in the lower 16 bits.
template <class T> DEV u32 pack2(float low, float high);
template <> DEV u32 pack2<bf16>(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <> DEV u32 pack2<f16>(float low, float high) {
    u16 a, b;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(a) : "f"(low));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(high));
    return (u32)a | (u32)b << 16;
}

template <class T> DEV void unpack2(u32 x, float& low, float& high) {
    T a, b;
    a.bits = (u16)(x & 0xffffu);
    b.bits = (u16)(x >> 16);
    low = wide(a);
    high = wide(b);
}

template <class T> DEV T narrow(float x) {
    T y;
    y.bits = (u16)(pack2<T>(x, 0.f) & 0xffffu);
    return y;
}
template <> DEV float narrow<float>(float x) { return x; }

// ---- approximations with a relative error of about 2^-22, and hints

DEV float ex2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV float rcp(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV float root(float x) { float y; asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }

// A pointer that was read from memory points to global memory.
template <class T> DEV void global(T* p) { __builtin_assume(__isGlobal(p)); }

// `x`, read again wherever this is called, so that it need not stay in a register.
DEV int opaque(int x) { int y; asm volatile("mov.u32 %0, %1;" : "=r"(y) : "r"(x)); return y; }
DEV int block_id() { int x; asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x)); return x; }

// ---- from global to shared memory without passing through registers

DEV u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Copies 16 bytes, of which `bytes` (16 or 0) are read and the others are zero; it arrives when
// cp_wait_all returns.
DEV void cp_async16(u32 to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(bytes) : "memory");
}
DEV void cp_async8(u32 to, const void* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" :: "r"(to), "l"(from), "r"(bytes) : "memory");
}
DEV void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
DEV void cp_wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

DEV float4 shared4(u32 address) {
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(address));
    return x;
}

// ---- tensor cores: a warp multiplies (16 x 16) by (16 x 8) and adds to (16 x 8)

// Four 8 x 8 matrices of 16-bit numbers; lane i gives the address of row i % 8 of matrix i / 8.
DEV void ldmatrix4(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
DEV void ldmatrix4_trans(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}

// c += a @ b. With g = lane / 4 and t = lane % 4, a lane holds
//   c: rows g and g + 8, columns 2t and 2t + 1;   b: rows 2t, 2t + 1 (b0) and 2t + 8, 2t + 9 (b1), column g;
//   a: rows g, g + 8 (a[0], a[1]) at columns 2t, 2t + 1, and the same at columns 2t + 8, 2t + 9 (a[2], a[3]).
template <class T> DEV void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <> DEV void mma<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> DEV void mma<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
