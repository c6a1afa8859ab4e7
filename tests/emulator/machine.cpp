// A block of threads on one processor: each thread is a fibre, which runs until it waits.
//
// A fibre is a stack and a place in the code. The scheduler lets the lanes of a warp run one after
// another until each waits, for the other lanes or at the barrier of the block. When all that are
// alive wait for the same, it is done, and they go on. Warps take turns in a random order that is
// the same in every run. What would hang a GPU, such as a barrier that some threads do not reach,
// ends with a message.

#include "machine.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <stdexcept>

Thread threads[MOST_THREADS];
int current = -1;
int n_threads;
u32 block_time;
u32 warp_time[MOST_THREADS / WARP];
uint3 threadIdx, blockIdx, blockDim, gridDim;

static void* scheduler_stack_pointer;
static char message[1000];
static const void* message_where;
static bool failed;
static void (*kernel)(void**);
static void** kernel_arguments;

// =================================================================================================
// Fibres
// =================================================================================================

// Saves the registers that a function must keep and the stack pointer, and takes those of another.
extern "C" void emulator_switch(void** save, void* load);
#if defined(__x86_64__)
asm(".globl emulator_switch\n"
    ".hidden emulator_switch\n"
    "emulator_switch:\n"
    "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
    "    ret\n");
static const int RETURN = 6;  // where the address to return to is, above the six registers
static const int FRAME = 8;   // keeps the stack aligned as after a call
#elif defined(__aarch64__)
asm(".globl emulator_switch\n"
    ".hidden emulator_switch\n"
    "emulator_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n");
static const int RETURN = 11;  // where x30 is
static const int FRAME = 20;
#else
#error "the emulator switches between fibres on x86-64 and on 64-bit ARM"
#endif

static void wait(State state, const void* where) {
    Thread& thread = threads[current];
    thread.state = state;
    thread.where = where;
    emulator_switch(&thread.stack_pointer, scheduler_stack_pointer);
}

static void run_thread() {
    kernel(kernel_arguments);
    Thread& thread = threads[current];
    if (thread.issued.size() || thread.committed.size())
        fail(nullptr, "the thread ends without waiting for what it copies by cp.async");
    wait(DONE, nullptr);
}

static void start(Thread& thread) {
    if (!thread.stack) {
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED)
            throw std::runtime_error("no memory for the stacks of the threads");
        thread.stack = (unsigned char*)stack;
    }
    void** frame = (void**)(thread.stack + STACK) - FRAME;
    frame[RETURN] = (void*)run_thread;
    thread.stack_pointer = frame;
    thread.state = READY;
    thread.issued.clear();
    thread.committed.clear();
}

static void resume(int i) {
    current = i;
    threadIdx = threads[i].index;
    emulator_switch(&scheduler_stack_pointer, threads[i].stack_pointer);
    current = -1;
    if (failed) throw std::runtime_error("");
}

void fail(const void* where, const char* format, ...) {
    int n = 0;
    if (current >= 0) {
        uint3 t = threads[current].index;
        n = snprintf(message, sizeof message,
                     "block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x, blockIdx.y,
                     blockIdx.z, t.x, t.y, t.z);
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + n, sizeof message - n, format, arguments);
    va_end(arguments);
    message_where = where;
    failed = true;
    if (current < 0) throw std::runtime_error("");
    wait(DONE, where);
    __builtin_unreachable();
}

// =================================================================================================
// The scheduler
// =================================================================================================

static u32 random_state;
static u32 draw(u32 n) {  // one of 0 ... n - 1
    random_state = random_state * 1664525u + 1013904223u;
    return (u32)((u64)random_state * n >> 32);
}

// Lets the lanes of a warp run until each waits, and does what all wait for. Whether any ran.
static bool run_warp(int first) {
    bool ran = false;
    for (;;) {
        int end = std::min(first + WARP, n_threads), speaker = -1;
        u32 alive = 0, waiting = 0;
        for (int i = first; i < end; i++) {
            if (threads[i].state == READY) {
                resume(i);
                ran = true;
            }
            if (threads[i].state != DONE) alive |= 1u << (i - first);
            if (threads[i].state == AT_WARP) {
                waiting |= 1u << (i - first);
                speaker = i;
            }
        }
        if (!waiting) return ran;
        const Thread& one = threads[speaker];
        for (int i = first; i < end; i++)
            if (threads[i].state == AT_WARP &&
                (threads[i].meeting != one.meeting || threads[i].offer.mask != one.offer.mask))
                fail(one.where, "the lanes of a warp wait for different instructions or lanes");
        if ((one.offer.mask & alive) != waiting) return ran;
        do_together(first, waiting, one.meeting);
        if (one.meeting == SYNC && waiting == alive) warp_time[first / WARP]++;
        for (int i = first; i < end; i++)
            if (threads[i].state == AT_WARP) threads[i].state = READY;
        if (draw(8) == 0) return true;
    }
}

// Lets the threads at the barrier of the block go on, if all that are alive are there.
static bool pass_barrier() {
    for (int i = 0; i < n_threads; i++)
        if (threads[i].state != AT_BLOCK && threads[i].state != DONE) return false;
    for (int i = 0; i < n_threads; i++)
        if (threads[i].state == AT_BLOCK) threads[i].state = READY;
    block_time++;
    return true;
}

static void run_block() {
    int warps = (n_threads + WARP - 1) / WARP;
    begin_block();
    for (int i = 0; i < n_threads; i++) {
        u32 x = blockDim.x, y = blockDim.y;
        threads[i].index = {i % x, i / x % y, i / (x * y)};
        start(threads[i]);
    }
    int order[MOST_THREADS / WARP];
    std::iota(order, order + warps, 0);
    for (;;) {
        bool ran = false;
        for (int i = warps - 1; i > 0; i--) std::swap(order[i], order[draw(i + 1)]);
        for (int i = 0; i < warps; i++) ran |= run_warp(order[i] * WARP);
        if (std::all_of(threads, threads + n_threads,
                        [](const Thread& t) { return t.state == DONE; }))
            return;
        if (pass_barrier() || ran) continue;
        for (int i = 0; i < n_threads; i++)
            if (threads[i].state == AT_WARP)
                fail(threads[i].where, "lanes wait for others of their warp, which do not come");
        fail(nullptr, "the threads wait for one another");
    }
}

// =================================================================================================
// What Python calls
// =================================================================================================

static void too_long(int) {
    if (current >= 0) fail(nullptr, "the kernel has not ended in time");
}

static void limit_time(int seconds) {
    struct sigaction action = {};
    action.sa_handler = too_long;
    action.sa_flags = SA_NODEFER;  // the handler does not return
    sigaction(SIGVTALRM, &action, nullptr);
    itimerval timer = {{0, 0}, {seconds, 0}};
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
}

// Runs all blocks. 0, or 1 after an error, which emulator_message tells. Blocks run one after
// another in a random order; `seconds` of the processor's time are the most that they may take.
extern "C" int emulator_launch(void (*function)(void**), void** arguments, const u32* grid,
                               const u32* block, int seconds) {
    kernel = function;
    kernel_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    n_threads = block[0] * block[1] * block[2];
    random_state = 20260101;
    failed = false;
    message[0] = 0;
    message_where = nullptr;
    limit_time(seconds);
    try {
        std::vector<u32> blocks(grid[0] * grid[1] * grid[2]);
        std::iota(blocks.begin(), blocks.end(), 0);
        for (size_t i = blocks.size() - 1; i > 0; i--) std::swap(blocks[i], blocks[draw(i + 1)]);
        for (u32 i : blocks) {
            blockIdx = {i % grid[0], i / grid[0] % grid[1], i / (grid[0] * grid[1])};
            run_block();
        }
    } catch (const std::exception& error) {
        if (!failed) snprintf(message, sizeof message, "%s", error.what());
        current = -1;
    }
    limit_time(0);
    return failed || message[0];
}

extern "C" const char* emulator_message() { return message; }

// Where the error is: the bytes from the beginning of the kernel's library, or 0.
extern "C" u64 emulator_message_offset() {
    Dl_info info;
    if (!message_where || !dladdr(message_where, &info)) return 0;
    return (u64)message_where - 1 - (u64)info.dli_fbase;  // the call, not the instruction after it
}

// =================================================================================================
// What kernels call
// =================================================================================================

#define HERE __builtin_return_address(0)

extern "C" void emulator_block_barrier() { wait(AT_BLOCK, HERE); }

static Offer& meet(Meeting meeting, u32 mask, const void* where) {
    Thread& thread = threads[current];
    if (!(mask >> current % WARP & 1)) fail(where, "the mask %08x lacks the lane itself", mask);
    thread.meeting = meeting;
    thread.offer.mask = mask;
    wait(AT_WARP, where);
    return thread.offer;
}

extern "C" void emulator_warp_barrier(u32 mask) { meet(SYNC, mask, HERE); }

extern "C" u64 emulator_shuffle(u32 mask, u64 value, int source) {
    Offer& offer = threads[current].offer;
    offer.value = value;
    offer.source = source;
    return meet(SHUFFLE, mask, HERE).value;
}

// The lanes whose predicate is true.
extern "C" u32 emulator_vote(u32 mask, int predicate) {
    threads[current].offer.value = predicate != 0;
    return (u32)meet(VOTE, mask, HERE).value;
}

extern "C" void emulator_load_matrix(u32* r, u32 address, bool transposed) {
    threads[current].offer.words[0] = address;
    Offer& offer = meet(transposed ? LOAD_MATRIX_TRANSPOSED : LOAD_MATRIX, ~0u, HERE);
    memcpy(r, offer.words, 16);
}

extern "C" void emulator_multiply(float* c, const u32* a, u32 b0, u32 b1, bool bf16) {
    Offer& offer = threads[current].offer;
    memcpy(offer.words, a, 16);
    offer.words[4] = b0;
    offer.words[5] = b1;
    memcpy(offer.sums, c, 16);
    memcpy(c, meet(bf16 ? MULTIPLY_BF16 : MULTIPLY_F16, ~0u, HERE).sums, 16);
}
