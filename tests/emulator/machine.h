// What the parts of the emulator share: the threads of a block and what they wait for.
//
// The kernels see only the functions that cuda.h declares.

#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

struct uint3 { u32 x, y, z; };

const int WARP = 32;
const int MOST_THREADS = 1024;         // of a block
const size_t STACK = 256 * 1024;       // bytes of a thread's stack
const u32 DYNAMIC_BYTES = 227 * 1024;  // the most dynamic shared memory of a block
const u32 STATIC_BYTES = 48 * 1024;    // the most static shared memory
const u32 STATIC_ADDRESS = 1 << 20;    // dynamic shared memory begins at address 0

// What the lanes of a warp do together. Each brings an offer; when all are there, the warp does it.
enum Meeting {
    SYNC,
    SHUFFLE,
    VOTE,
    LOAD_MATRIX,
    LOAD_MATRIX_TRANSPOSED,
    MULTIPLY_BF16,
    MULTIPLY_F16
};

struct Offer {
    u32 mask;       // the lanes that take part
    u64 value;      // of a shuffle or a vote, and its result
    int source;     // the lane whose value a shuffle gives
    u32 words[6];   // the address of a row; the words of the matrices a and b; the result of a load
    float sums[4];  // the elements of the matrix c
};

struct Copy {  // one cp.async
    u32 to;
    const unsigned char* from;
    u32 size, read;  // bytes that are written, and those of them that are read; the rest is 0
};

enum Access { READ, WRITE, ATOMIC };

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Thread {
    void* stack_pointer;
    unsigned char* stack;
    State state;
    uint3 index;
    Meeting meeting;
    Offer offer;
    const void* where;  // the instruction that waits
    std::vector<Copy> issued, committed;
};

extern Thread threads[MOST_THREADS];
extern int current;  // the thread that runs, -1 for none
extern int n_threads;
extern u32 block_time;  // how many barriers of blocks there have been; grows with each block too
extern u32 warp_time[MOST_THREADS / WARP];  // how many barriers of the warp

// Ends the launch with this message; `where` is an address in the kernel's code.
[[noreturn]] void fail(const void* where, const char* format, ...);

// Does what the waiting lanes of a warp came together for.
void do_together(int first, u32 lanes, Meeting meeting);

// memory.cpp
void begin_block();
unsigned char* shared_memory(u32 address, u32 size, const void* where);
void note_shared(u32 address, u32 size, Access access, int thread, const void* where);
