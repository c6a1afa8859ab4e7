// The update of all parameters in one launch: AdamW (Kingma and Ba, 2014; Loshchilov and Hutter,
// 2017).
//
// A model has some hundred parameters, from 1 element to 40 million. A table in the memory of the
// GPU has the addresses of each one's arrays, and a list of chunks of equal length cuts them up; a
// block takes a chunk. Every array is read once and written once: the memory's bandwidth bounds it.
//
// Gradients are divided by the loss's scale (float16) and clipped by their norm on the way, so the
// sum of their squares comes from an earlier launch. If it is not finite, nothing changes.

#include "arrays.cuh"

// The arrays of a parameter, float32; those that it lacks are null. `copy` is of 16 bits.
struct Entry { float* p; float* g; float* m; float* v; u16* copy; i64 size; i64 group; };

// What a block works on: `count` elements of each array, of which the first 4 * `vectors` are read
// and written by fours.
struct Chunk { float* p; float* g; float* m; float* v; u16* copy; int count, vectors, group; };

DEV Chunk chunk_of(const Entry* entries, const int2* chunks, int length) {
    int2 at = chunks[blockIdx.x];
    Entry e = entries[at.x];
    i64 begin = (i64)at.y * length, left = e.size - begin;
    Chunk c = {e.p + begin, e.g ? e.g + begin : nullptr, e.m + begin, e.v + begin,
               e.copy ? e.copy + begin : nullptr, (int)(left < length ? left : length), 0,
               (int)e.group};
    bool aligned = (((u64)c.p | (u64)c.g | (u64)c.m | (u64)c.v) & 15) == 0;
    if (aligned && ((u64)c.copy & 7) == 0) c.vectors = c.count / 4;
    return c;
}

// part (gridDim.x,): for each chunk the sum of the squares of its gradient
__global__ void __launch_bounds__(256)
sum_of_squares(const Entry* entries, const int2* chunks, int length, float* part) {
    Chunk c = chunk_of(entries, chunks, length);
    float sum = 0.f;
    if (c.g) {
        global(c.g);
#pragma unroll 4
        for (int i = threadIdx.x; i < c.vectors; i += 256) {
            float g[4];
            load<4>(c.g + 4 * i, g);
            sum += g[0] * g[0] + g[1] * g[1] + (g[2] * g[2] + g[3] * g[3]);
        }
        for (int i = c.vectors * 4 + threadIdx.x; i < c.count; i += 256) sum += c.g[i] * c.g[i];
    }
    sum = row_sum<true>(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

// A row of the settings, as adamw_settings of update.py writes it.
enum { BETA1, REST1, BETA2, REST2, EPS, RATE, DECAY, MAX_NORM, INVERSE_SCALE, SETTINGS };

template <class Low, int V>
DEV void adamw_at(const Chunk& c, int i, const float* s, float factor) {
    float p[V], g[V], m[V], v[V];
    load<V>(c.p + i, p);
    load<V>(c.g + i, g);
    load<V>(c.m + i, m);
    load<V>(c.v + i, v);
#pragma unroll
    for (int j = 0; j < V; j++) {
        g[j] *= factor;
        m[j] = m[j] * s[BETA1] + g[j] * s[REST1];
        v[j] = v[j] * s[BETA2] + g[j] * g[j] * s[REST2];
        p[j] = p[j] * s[DECAY] - m[j] * rcp(root(v[j]) + s[EPS]) * s[RATE];
    }
    store<V>(c.p + i, p);
    store<V>(c.m + i, m);
    store<V>(c.v + i, v);
    if constexpr (sizeof(Low) == 2)
        if (c.copy) store<V>(reinterpret_cast<Low*>(c.copy) + i, p);
}

// Low is the type of the copies, float where there are none.
// settings (groups, SETTINGS); square: the sum of squares of all gradients, or null: no clipping
template <class Low>
__global__ void __launch_bounds__(256)
adamw(const Entry* entries, const int2* chunks, int length, const float* settings,
      const float* square) {
    Chunk c = chunk_of(entries, chunks, length);
    if (!c.g) return;
    global(c.p); global(c.g); global(c.m); global(c.v);
    float s[SETTINGS];
#pragma unroll
    for (int k = 0; k < SETTINGS; k++) s[k] = settings[c.group * SETTINGS + k];
    float factor = s[INVERSE_SCALE];
    if (square) {
        float norm = sqrtf(square[0]) * s[INVERSE_SCALE];
        if (!(norm < INF)) return;
        factor *= fminf(s[MAX_NORM] / (norm + 1e-6f), 1.f);
    }
#pragma unroll 2
    for (int i = threadIdx.x; i < c.vectors; i += 256)
        adamw_at<Low, 4>(c, 4 * i, s, factor);
    for (int i = c.vectors * 4 + threadIdx.x; i < c.count; i += 256)
        adamw_at<Low, 1>(c, i, s, factor);
}

// copy = p, rounded, of all parameters that have a copy
template <class Low>
__global__ void __launch_bounds__(256)
cast_all(const Entry* entries, const int2* chunks, int length) {
    Chunk c = chunk_of(entries, chunks, length);
    if (!c.copy) return;
    global(c.p); global(c.copy);
    Low* copy = reinterpret_cast<Low*>(c.copy);
    float p[4];
#pragma unroll 4
    for (int i = threadIdx.x; i < c.vectors; i += 256) {
        load<4>(c.p + 4 * i, p);
        store<4>(copy + 4 * i, p);
    }
    for (int i = c.vectors * 4 + threadIdx.x; i < c.count; i += 256)
        copy[i] = narrow<Low>(c.p[i]);
}
