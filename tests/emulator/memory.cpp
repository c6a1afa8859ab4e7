// Every access of a kernel to memory, looked at before it happens.
//
// The kernels are compiled with g++ -fsanitize=thread but without that sanitizer's library: its
// functions, such as __tsan_read4(address), are defined here. So a read or write outside of the
// arrays that a kernel was given, at an address that is not aligned, or of another thread's local
// variables, ends the launch with a message instead of the process.
//
// Of each byte of shared memory it is known who wrote and who read it last, and when. Two accesses
// of one byte by different threads, one of which writes, must have a barrier between them. This
// finds a missing barrier in whatever order the threads happen to run.

#include "machine.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>

// =================================================================================================
// Global memory: the arrays of a launch
// =================================================================================================

struct Array {
    u64 begin, end;
    bool writable;
};

static std::vector<Array> arrays;
static size_t last_used;

// Which arrays the next launch may use.
extern "C" void emulator_arrays(const u64* begin, const u64* end, const unsigned char* writable,
                                int n) {
    arrays.clear();
    for (int i = 0; i < n; i++) arrays.push_back({begin[i], end[i], writable[i] != 0});
    last_used = 0;
}

static bool in_array(u64 address, u32 size, bool write) {
    for (size_t i = 0; i < arrays.size(); i++) {
        size_t k = (last_used + i) % arrays.size();
        const Array& a = arrays[k];
        if (a.begin <= address && address + size <= a.end && (a.writable || !write)) {
            last_used = k;
            return true;
        }
    }
    return false;
}

// =================================================================================================
// Shared memory
// =================================================================================================

const int ATOMICALLY = -1;        // who wrote: any of the threads
const int SEVERAL_WARPS = -1000;  // who read; several lanes of warp w are -1 - w

struct Byte {
    u32 write_block_time, write_warp_time, read_block_time, read_warp_time;
    int16_t writer, reader;
    bool on_its_way;  // cp.async was issued and not waited for
};

alignas(1024) unsigned char emulator_dynamic[DYNAMIC_BYTES];
static u32 dynamic_size;
static unsigned char* static_begin;  // __shared__ variables are thread_local (cuda.h)
static u32 static_size;
static Byte dynamic_bytes[DYNAMIC_BYTES], static_bytes[STATIC_BYTES];
static u32 block_begin;  // block_time when the block began

static int find_static(dl_phdr_info* info, size_t, void* function) {
    bool mine = false;
    u64 size = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) & part = info->dlpi_phdr[i];
        u64 begin = info->dlpi_addr + part.p_vaddr;
        if (part.p_type == PT_LOAD && begin <= (u64)function &&
            (u64)function < begin + part.p_memsz)
            mine = true;
        if (part.p_type == PT_TLS) size = part.p_memsz;
    }
    if (!mine) return 0;
    static_begin = (unsigned char*)info->dlpi_tls_data;
    static_size = static_begin ? size : 0;
    return 1;
}

// Prepares for a kernel: where its shared memory is, and how much. The bytes of the static part.
extern "C" u32 emulator_shared(void* function, void (*touch)(), u32 dynamic) {
    touch();  // the thread_local variables of a library exist once one was used
    static_size = 0;
    dl_iterate_phdr(find_static, function);
    dynamic_size = dynamic;
    return static_size;
}

// A new block does not see what the one before left: nobody has written anything yet.
void begin_block() {
    block_begin = ++block_time;
    memset(emulator_dynamic, 0xff, dynamic_size);
}

unsigned char* shared_memory(u32 address, u32 size, const void* where) {
    if (address % size) fail(where, "%u bytes of shared memory at %u: not aligned", size, address);
    u64 end = (u64)address + size;
    if (end <= dynamic_size) return emulator_dynamic + address;
    if (address >= STATIC_ADDRESS && end <= STATIC_ADDRESS + static_size)
        return static_begin + (address - STATIC_ADDRESS);
    fail(where, "%u bytes of shared memory at %u: there are %u bytes of dynamic and %u of static",
         size, address, dynamic_size, static_size);
}

// What is known of the bytes from this address on.
static Byte* bytes_at(u32 address) {
    return address < STATIC_ADDRESS ? dynamic_bytes + address
                                    : static_bytes + (address - STATIC_ADDRESS);
}

// Whether a barrier lies between what `thread` does now and what `other` did then.
static bool ordered(int thread, int other, u32 other_block_time, u32 other_warp_time) {
    if (other == thread || other_block_time < block_time) return true;
    if (other == ATOMICALLY) return false;
    return other / WARP == thread / WARP && other_warp_time < warp_time[thread / WARP];
}

static bool ordered_after_reads(int thread, const Byte& b) {
    if (b.read_block_time < block_time) return true;
    if (b.reader == SEVERAL_WARPS) return false;
    if (b.reader >= 0) return ordered(thread, b.reader, b.read_block_time, b.read_warp_time);
    return -1 - b.reader == thread / WARP && b.read_warp_time < warp_time[thread / WARP];
}

static void note_read(int thread, Byte& b) {
    int warp = thread / WARP;
    bool same_warp = b.reader >= 0 ? b.reader / WARP == warp : -1 - b.reader == warp;
    if (b.read_block_time < block_time || (same_warp && b.read_warp_time < warp_time[warp]))
        b.reader = thread;
    else if (!same_warp) b.reader = SEVERAL_WARPS;
    else if (b.reader != thread) b.reader = -1 - warp;
    b.read_block_time = block_time;
    b.read_warp_time = warp_time[warp];
}

static void note_write(int thread, Byte& b) {
    b.on_its_way = false;
    b.writer = thread;
    b.write_block_time = block_time;
    b.write_warp_time = thread == ATOMICALLY ? 0 : warp_time[thread / WARP];
}

void note_shared(u32 address, u32 size, Access access, int thread, const void* where) {
    for (u32 i = 0; i < size; i++) {
        Byte& b = bytes_at(address)[i];
        bool written = b.write_block_time >= block_begin;
        bool both_atomic = access == ATOMIC && b.writer == ATOMICALLY;
        if (written && b.on_its_way)
            fail(where, "shared memory at %u: cp.async has not been waited for", address + i);
        if (!written && access != WRITE)
            fail(where, "shared memory at %u is read and nobody wrote it", address + i);
        if (written && !both_atomic &&
            !ordered(thread, b.writer, b.write_block_time, b.write_warp_time))
            fail(where, "no barrier between this and what thread %d wrote to shared memory at %u",
                 b.writer, address + i);
        if (access != READ && !ordered_after_reads(thread, b))
            fail(where, "this writes to shared memory at %u, and no barrier lies after its reading",
                 address + i);
        if (access == READ) note_read(thread, b);
        else note_write(access == ATOMIC ? ATOMICALLY : thread, b);
    }
}

extern "C" u32 emulator_shared_address(const void* pointer) {
    const unsigned char* p = (const unsigned char*)pointer;
    if (emulator_dynamic <= p && p <= emulator_dynamic + DYNAMIC_BYTES) return p - emulator_dynamic;
    if (static_begin <= p && p < static_begin + static_size)
        return STATIC_ADDRESS + (p - static_begin);
    fail(__builtin_return_address(0), "this pointer does not point to shared memory");
}

// =================================================================================================
// Copies that arrive later
// =================================================================================================

static void look_at(u64 address, u32 size, Access access, bool aligned, const void* where);

extern "C" void emulator_copy(u32 to, const void* from, int size, int read) {
    const void* where = __builtin_return_address(0);
    if (read != 0 && read != size)
        fail(where, "cp.async of %d bytes, of which %d are read", size, read);
    if ((u64)from % size)
        fail(where, "cp.async from an address that is not a multiple of %d", size);
    if (read) look_at((u64)from, read, READ, true, where);
    shared_memory(to, size, where);
    note_shared(to, size, WRITE, current, where);
    for (int i = 0; i < size; i++) bytes_at(to)[i].on_its_way = true;
    threads[current].issued.push_back({to, (const unsigned char*)from, (u32)size, (u32)read});
}

extern "C" void emulator_copy_commit() {
    Thread& thread = threads[current];
    thread.committed.insert(thread.committed.end(), thread.issued.begin(), thread.issued.end());
    thread.issued.clear();
}

extern "C" void emulator_copy_wait() {
    for (const Copy& copy : threads[current].committed) {
        unsigned char* to = shared_memory(copy.to, copy.size, nullptr);
        memset(to, 0, copy.size);
        memcpy(to, copy.from, copy.read);
        for (u32 i = 0; i < copy.size; i++) note_write(current, bytes_at(copy.to)[i]);
    }
    threads[current].committed.clear();
}

extern "C" void emulator_shared4(float* to, u32 address) {
    const void* where = __builtin_return_address(0);
    memcpy(to, shared_memory(address, 16, where), 16);
    note_shared(address, 16, READ, current, where);
}

// =================================================================================================
// What the compiler calls
// =================================================================================================

static void look_at(u64 address, u32 size, Access access, bool aligned, const void* where) {
    if (current < 0) return;
    u64 stack = (u64)threads[current].stack;
    if (stack <= address && address < stack + STACK) return;
    const char* does = access == READ ? "reads" : "writes";
    if (aligned && address % size)
        fail(where, "%s %u bytes at an address that is no multiple of it", does, size);
    u64 dynamic = address - (u64)emulator_dynamic, fixed = address - (u64)static_begin;
    if (dynamic < DYNAMIC_BYTES) {
        if (dynamic + size > dynamic_size)
            fail(where, "%s behind the %u bytes of dynamic shared memory", does, dynamic_size);
        note_shared(dynamic, size, access, current, where);
    } else if (fixed < static_size) {
        note_shared(STATIC_ADDRESS + fixed, size, access, current, where);
    } else if (!in_array(address, size, access != READ)) {
        fail(where, "%s %u bytes outside of the arrays of the launch, or in one that is read-only",
             does, size);
    }
}

extern "C" void emulator_atomic(void* p, int size) {
    look_at((u64)p, size, ATOMIC, true, __builtin_return_address(0));
}

#define ACCESS(name, size, access, aligned)                                  \
    extern "C" void __tsan_##name(void* p) {                                 \
        look_at((u64)p, size, access, aligned, __builtin_return_address(0)); \
    }
#define ACCESSES(size)                                                                     \
    ACCESS(read##size, size, READ, true)                                                   \
    ACCESS(write##size, size, WRITE, true) ACCESS(unaligned_read##size, size, READ, false) \
        ACCESS(unaligned_write##size, size, WRITE, false)
ACCESSES(1)
ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16) extern "C" void __tsan_read_range(void* p, u64 n) {
    look_at((u64)p, n, READ, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* p, u64 n) {
    look_at((u64)p, n, WRITE, false, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
