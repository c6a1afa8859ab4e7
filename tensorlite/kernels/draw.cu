// The next token of each text, drawn from the model's logits as gpt/generate/sampling.py does it.
//
// Every filter keeps the likeliest ids up to some place: top-k so many of them, top-p those that
// together reach a probability, min-p those of some likelihood. So each id has a key that sorts by
// logit, the lower of two ids with equal logits first, and what may be drawn are the ids with keys
// from a `cut` up. The cut is found bit by bit: it gets a bit if enough ids remain.
//
// Probabilities are whole numbers, exp((logit - largest) / temperature) times 2^40, of which sums
// are exact: neither the order of threads nor the number of texts changes what is drawn.
//
// A block of 32 warps for each text, which reads its row of logits a few times from the L2 cache.
// For a cut it would have to be read 50 times; so the block first looks at the best id of each
// thread only. A cut that leaves enough of these leaves enough of all, and seldom many more; these
// candidates go into shared memory, where the cut proper is found.

#include "arrays.cuh"

constexpr int THREADS = 1024, WARPS = THREADS / 32, ROOM = 2 * THREADS;
constexpr int ID_BITS = 20, KEY_BITS = 32 + ID_BITS;
constexpr bool COUNT = false, MASS = true;  // what is summed over the ids from a cut up
constexpr float ONE = 1099511627776.f;      // 2^40

DEV u64 warp_sum(u64 v) {
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
DEV u64 warp_max(u64 v) {
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        u64 w = __shfl_xor_sync(0xffffffffu, v, o);
        v = w > v ? w : v;
    }
    return v;
}
template <bool LARGEST> DEV u64 over_block(u64 v) {  // the largest, or the sum, of all threads
    __shared__ u64 part[WARPS];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    v = LARGEST ? warp_max(v) : warp_sum(v);
    __syncthreads();
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return LARGEST ? warp_max(part[lane]) : warp_sum(part[lane]);
}

struct Row {
    const float* logits;  // (n,)
    const float* bias;    // (n,), added to them, or null
    int n;
    float largest, scale, min_p;  // scale is log2(e) / temperature

    DEV u64 key(int id) const {
        float logit = logits[id] + (bias ? bias[id] : 0.f) + 0.f;  // + 0.f: -0 becomes 0
        u32 bits = __float_as_uint(logit);
        bits = logit != logit ? 0xffffffffu : bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
        return (u64)bits << ID_BITS | (u32)((1 << ID_BITS) - 1 - id);
    }
    static DEV int id(u64 key) { return (1 << ID_BITS) - 1 - (int)(key & ((1 << ID_BITS) - 1)); }
    static DEV float logit(u64 key) {
        u32 bits = (u32)(key >> ID_BITS);
        return __uint_as_float(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
    }
    DEV float likelihood(u64 key) const { return ex2((logit(key) - largest) * scale); }
    DEV u64 mass(u64 key) const { return (u64)(likelihood(key) * ONE); }
};

// The ids that a cut is looked for among: keys in shared memory, or, without these, the whole row.
struct Ids {
    const Row& row;
    const u64* keys;
    int n;

    // How many ids have keys from `cut` up, or their mass.
    template <bool WHAT> DEV u64 from(u64 cut) const {
        u64 sum = 0;
        for (int i = threadIdx.x; i < n; i += THREADS) {
            u64 key = keys ? keys[i] : row.key(i);
            if (key >= cut) sum += WHAT == MASS ? row.mass(key) : 1;
        }
        return over_block<false>(sum);
    }
    // The largest cut from which there is as much as needed; 0 if there is less altogether.
    template <bool WHAT> DEV u64 cut(u64 needed) const {
        u64 cut = 0;
        for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
            u64 there = from<WHAT>(cut | 1ull << bit);
            if (there >= needed) cut |= 1ull << bit;
            if (there == needed) break;
        }
        return cut;
    }
};

// logits (B, V) float32, of which the first `n` ids may be drawn; bias (n,) or null. The random
// number of a text is `uniform` (steps, B) at its `step`, a fraction of 2^64. The token goes to
// `token`, and to `tokens` (steps, B); its log-probability, before bias and filters, to `logprobs`.
// `slot` and `step` (B,) move on by one. Where the largest logit is not finite, `tokens` has -1.
__global__ void __launch_bounds__(THREADS, 1)
draw(const float* logits, const float* bias, int V, int n, float temperature, int top_k,
     double top_p, float min_p, const u64* uniform, int* step, int* slot, int size, int* token,
     int* tokens, float* logprobs) {
    __shared__ u64 keys[ROOM], masses[WARPS];
    __shared__ int count;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, text = blockIdx.x;
    Row row = {logits + (i64)text * V, bias, n, 0.f, fminf(LOG2E / temperature, 1e30f), min_p};
    u64 mine = 0;
#pragma unroll 8  // so many logits are on their way at once
    for (int i = threadIdx.x; i < n; i += THREADS) {
        u64 key = row.key(i);
        mine = key > mine ? key : mine;
    }
    u64 best = over_block<true>(mine);
    int chosen = Row::id(best);
    row.largest = Row::logit(best);
    bool finite = fabsf(row.largest) < INF;

    if (finite && temperature > 0.f) {
        u64 cut = 0;
        if (top_k < n || top_p < 1.) {
            Ids all = {row, nullptr, n};
            keys[threadIdx.x] = mine;
            if (threadIdx.x == 0) count = 0;
            __syncthreads();
            Ids bests = {row, keys, THREADS};
            u64 whole = top_p < 1. ? all.from<MASS>(0) : 0;
            cut = top_k < n ? bests.cut<COUNT>(top_k) : bests.cut<MASS>((u64)ceil(top_p * whole));
            __syncthreads();
            if (mine >= cut)
                for (int i = threadIdx.x; i < n; i += THREADS) {
                    u64 key = row.key(i);
                    if (key < cut) continue;
                    int at = atomicAdd(&count, 1);
                    if (at < ROOM) keys[at] = key;
                }
            __syncthreads();
            Ids candidates = count <= ROOM ? Ids{row, keys, count} : all;
            if (top_k < n) cut = max(cut, candidates.cut<COUNT>(top_k));
            if (top_p < 1.) {
                if (top_k < n) whole = candidates.from<MASS>(cut);
                cut = max(cut, candidates.cut<MASS>((u64)ceil(top_p * whole)));
            }
        }
        // The id at which the sum over the ids before it passes the random share of the whole. Each
        // warp sums a part of the range of ids; the part where it passes is the next range.
        auto share = [&](int i) {
            u64 key = row.key(i);
            return key >= cut && row.likelihood(key) >= min_p ? row.mass(key) : 0;
        };
        u64 total = 0;
#pragma unroll 8
        for (int i = threadIdx.x; i < n; i += THREADS) total += share(i);
        total = over_block<false>(total);
        u64 place = __umul64hi(uniform[(i64)step[text] * gridDim.x + text], total);
        int from = 0, to = n;
        while (to - from > 1) {
            int length = (to - from + WARPS - 1) / WARPS, begin = from + warp * length;
            u64 sum = 0;
            for (int i = begin + lane; i < min(begin + length, to); i += 32) sum += share(i);
            sum = warp_sum(sum);
            __syncthreads();
            if (lane == 0) masses[warp] = sum;
            __syncthreads();
            int part = 0;
            while (part < WARPS - 1 && place >= masses[part]) place -= masses[part++];
            from += part * length;
            to = min(from + length, to);
        }
        chosen = from;
    }

    if (logprobs && finite) {
        float largest = -INF, sum = 0.f;
        for (int i = threadIdx.x; i < V; i += THREADS) largest = fmaxf(largest, row.logits[i]);
        largest = row_max<true>(largest);
        for (int i = threadIdx.x; i < V; i += THREADS) sum += expf(row.logits[i] - largest);
        sum = row_sum<true>(sum);
        if (threadIdx.x == 0)
            logprobs[(i64)step[text] * gridDim.x + text] = row.logits[chosen] - largest - logf(sum);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        token[text] = finite ? chosen : 0;
        tokens[(i64)step[text] * gridDim.x + text] = finite ? chosen : -1;
        step[text]++;
        slot[text] = min(slot[text] + 1, size - 1);
    }
}
