// The sum of an array of float32, in double precision, by one block of 1,024 threads.
//
// Each thread sums every 1,024th number, and the threads add their sums up in a tree, always in the
// same order. The arrays are short (a loss for each row, a partial sum for each block), so that one
// block suffices; what bounds it is the time of a launch.

#include "arrays.cuh"

// The sum over the threads of a block, a power of two, in all of them.
DEV double block_total(double x) {
    __shared__ double box[1024];
    box[threadIdx.x] = x;
    for (int distance = blockDim.x / 2; distance; distance /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < distance) box[threadIdx.x] += box[threadIdx.x + distance];
    }
    __syncthreads();
    return box[0];
}

// out[0] = sum(x), divided by divisor[0] unless that pointer is null
__global__ void __launch_bounds__(1024)
total(const float* x, i64 size, const float* divisor, float* out) {
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < size; i += blockDim.x) sum += (double)x[i];
    sum = block_total(sum);
    if (threadIdx.x == 0) out[0] = (float)(divisor ? sum / (double)divisor[0] : sum);
}

// How many targets count: those in 0 <= target < classes that are not `ignored`.
// counts[0] = that number, counts[1] = 1 / max(that number, 1)
__global__ void __launch_bounds__(1024)
count_targets(const i64* targets, i64 rows, i64 ignored, i64 classes, float* counts) {
    double found = 0.0;
    for (i64 i = threadIdx.x; i < rows; i += blockDim.x) {
        i64 target = targets[i];
        if (target >= 0 && target < classes && target != ignored) found += 1.0;
    }
    found = block_total(found);
    if (threadIdx.x == 0) {
        counts[0] = (float)found;
        counts[1] = (float)(1.0 / fmax(found, 1.0));
    }
}
