// Rows of a table by their ids, and the gradient of the table: for each id, the sum of the rows of
// the gradient at the positions that have this id.
//
// The gradient wants the positions of equal ids side by side. So the ids are sorted on the GPU, and
// nobody waits for it: `sort_ids` counts for each position how many come before it, comparing every
// id with every other one. These are N^2 comparisons of integers, and arithmetic bounds it. A block
// takes 32 positions, one for each lane, and each of its 8 warps compares them with an eighth of
// the ids that are in shared memory at the time.
//
// `embedding_gradient` then has a block for every place of the sorted order. The blocks at which a
// new id begins sum its rows, blockDim.y of them side by side; the others end at once. What bounds
// it is the memory, and the longest run of equal ids. There are no atomics: the order of the sums
// is fixed.

#include "arrays.cuh"

#define NO_ID 0x7fffffffu  // stands for ids outside the table, and comes last

// out (positions, n): the row of weight (vocabulary, n) for each id, or NaN for an id outside it.
// blockDim.y positions a block.
template <class T, int V>
__global__ void __launch_bounds__(256)
gather(const T* weight, const i64* ids, T* out, i64 positions, i64 vocabulary, int n) {
    i64 position = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (position >= positions) return;
    i64 id = ids[position];
    bool known = id >= 0 && id < vocabulary;
    for (int c = threadIdx.x * V; c < n; c += blockDim.x * V) {
        float r[V];
        if (known) load<V>(weight + id * n + c, r);
        else
#pragma unroll
            for (int j = 0; j < V; j++) r[j] = INF - INF;
        store<V>(out + position * n + c, r);
    }
}

// sorted (count,): the ids in ascending order. order (count,): the position of each of them; equal
// ids stay in the order of their positions.
__global__ void __launch_bounds__(256)
sort_ids(const i64* ids, int count, i64 vocabulary, u32* sorted, int* order) {
    constexpr int TILE = 2048, PART = TILE / 8;
    alignas(16) __shared__ u32 tile[TILE];
    __shared__ int before[8][32];
    int thread = threadIdx.y * 32 + threadIdx.x;
    int position = blockIdx.x * 32 + threadIdx.x, part = threadIdx.y * PART;
    i64 id = position < count ? ids[position] : -1;
    u32 mine = id >= 0 && id < vocabulary ? (u32)id : NO_ID;
    int smaller = 0;
    for (int start = 0; start < count; start += TILE) {
        __syncthreads();
        for (int i = thread; i < TILE; i += 256) {
            i64 other = start + i < count ? ids[start + i] : -1;
            tile[i] = other >= 0 && other < vocabulary ? (u32)other : NO_ID;
        }
        __syncthreads();
        if (start <= position && position < start + TILE) {  // of equal ids, count the earlier ones
            for (int i = part; i < part + PART; i++)
                smaller += tile[i] < mine + (start + i < position);
        } else {  // all of the tile is earlier, or all of it is later
            u32 limit = mine + (start < position);
            for (int i = part; i < part + PART; i += 4) {
                uint4 four = *reinterpret_cast<const uint4*>(tile + i);
                smaller += (four.x < limit) + (four.y < limit);
                smaller += (four.z < limit) + (four.w < limit);
            }
        }
    }
    before[threadIdx.y][threadIdx.x] = smaller;
    __syncthreads();
    if (threadIdx.y == 0 && position < count) {
        int rank = 0;
        for (int y = 0; y < 8; y++) rank += before[y][threadIdx.x];
        sorted[rank] = mine;
        order[rank] = position;
    }
}

// out (vocabulary, n) += for each id, the sum of the rows of g (count, n) at its positions
template <class G, class O, int V>
__global__ void __launch_bounds__(512, 1)
embedding_gradient(const G* g, const u32* sorted, const int* order, int count, O* out, int n) {
    typedef typename Stored<G, V>::type Bits;
    constexpr int AT_ONCE = 8;  // rows under way in each thread
    DYNAMIC(memory);
    float* box = reinterpret_cast<float*>(memory);  // (blockDim.y, blockDim.x, V)
    int begin = blockIdx.x, side = blockDim.y, width = blockDim.x * V;
    u32 id = sorted[begin];
    if (id == NO_ID || (begin > 0 && sorted[begin - 1] == id)) return;
    bool several = begin + 1 < count && sorted[begin + 1] == id;
    for (int start = 0; start < n; start += width) {
        int c = start + threadIdx.x * V;
        float sum[V] = {};
        bool more = c < n;
        for (int i = begin + threadIdx.y; more; i += AT_ONCE * side) {
            int row[AT_ONCE];
            Bits bits[AT_ONCE];
#pragma unroll
            for (int u = 0; u < AT_ONCE; u++) {
                int at = i + u * side, position = at < count ? order[at] : -1;
                row[u] = at < count && sorted[at] == id ? position : -1;
            }
#pragma unroll
            for (int u = 0; u < AT_ONCE; u++)
                if (row[u] >= 0)
                    bits[u] = *reinterpret_cast<const Bits*>(g + (i64)row[u] * n + c);
#pragma unroll
            for (int u = 0; u < AT_ONCE; u++)
                if (row[u] >= 0) {
                    float r[V];
                    load<V>(reinterpret_cast<const G*>(&bits[u]), r);
#pragma unroll
                    for (int j = 0; j < V; j++) sum[j] += r[j];
                }
            more = row[AT_ONCE - 1] >= 0;
        }
        float* mine = box + threadIdx.y * width + threadIdx.x * V;
        if (several) {
            __syncthreads();
            store<V>(mine, sum);
            __syncthreads();
        }
        if (threadIdx.y == 0 && c < n) {
            float r[V];
            for (int y = 1; several && y < side; y++) {
                load<V>(mine + y * width, r);
#pragma unroll
                for (int j = 0; j < V; j++) sum[j] += r[j];
            }
            load<V>(out + (i64)id * n + c, r);
#pragma unroll
            for (int j = 0; j < V; j++) r[j] += sum[j];
            store<V>(out + (i64)id * n + c, r);
        }
    }
}
