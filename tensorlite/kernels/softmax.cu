// The softmax of causal attention's scores, and its gradient, for attention that is computed by
// matrix products.
//
// A warp takes a row: lane i has every 32nd column from i on. One pass finds the largest score and
// the sum of the exponentials, as in loss.cu, and a second one, which finds the row in the cache,
// writes the probabilities. A row is read once and written once: the memory's bandwidth bounds it.
// Row q of T sees the first q + 1 + S - T of S keys, so that the last row sees them all; the rest
// is not read.

#include "arrays.cuh"

// scores (rows, S) become softmax(scale * scores). With `keep` (rows, S), dropped (rows, S) gets
// keep_scale times the probabilities where keep is true, and 0 elsewhere.
__global__ void __launch_bounds__(256)
causal_softmax(float* scores, float* dropped, const unsigned char* keep, float scale,
               float keep_scale, i64 rows, int T, int S) {
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float* x = scores + row * S;
    int lane = threadIdx.x, keys = (int)(row % T) + 1 + S - T;
    float top = -1e30f, sum = 0.f;
    for (int c = lane; c < keys; c += 32) {
        float score = x[c] * scale, larger = fmaxf(top, score);
        sum = sum * expf(top - larger) + expf(score - larger);
        top = larger;
    }
    float largest = warp_max(top);
    float factor = 1.f / warp_sum(sum * expf(top - largest));
    for (int c = lane; c < S; c += 32) {
        float p = c < keys ? expf(x[c] * scale - largest) * factor : 0.f;
        x[c] = p;
        if (keep) dropped[row * S + c] = keep[row * S + c] ? p * keep_scale : 0.f;
    }
}

// gradient (rows, S), that of the probabilities after dropping, becomes that of the scores:
// scale p (g - sum(g p)), where g is the gradient of the probabilities p before dropping.
__global__ void __launch_bounds__(256)
causal_softmax_backward(const float* p, float* gradient, const unsigned char* keep, float scale,
                        float keep_scale, i64 rows, int T, int S) {
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    i64 at = row * S;
    int lane = threadIdx.x, keys = (int)(row % T) + 1 + S - T;
    float sum = 0.f;
    for (int c = lane; c < keys; c += 32) {
        float g = gradient[at + c];
        if (keep) g = keep[at + c] ? g * keep_scale : 0.f;
        sum += g * p[at + c];
    }
    sum = warp_sum(sum);
    for (int c = lane; c < S; c += 32) {
        float g = c < keys ? gradient[at + c] : 0.f;
        if (keep) g = keep[at + c] ? g * keep_scale : 0.f;
        gradient[at + c] = c < keys ? p[at + c] * (g - sum) * scale : 0.f;
    }
}
