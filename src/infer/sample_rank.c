/* Ranks among V numbers without sorting all of them: binary heaps. */
#include "infer/sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

psk_status psk_logits_check(int64_t V, const float *logits) {
    if (V < 1 || V > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "a vocabulary of %" PRId64 " tokens: 1 ... 2^31 - 1 are possible", V);
    for (int64_t v = 0; v < V; v++)
        if (!isfinite(logits[v]))
            return psk_fail(PSK_ERROR_NUMERIC, "the logit of token %" PRId64 " is %g: the model's output is not finite",
                            v, (double)logits[v]);
    return PSK_OK;
}

int64_t psk_largest(int64_t V, const double *values) {
    int64_t largest = 0;
    for (int64_t v = 1; v < V; v++)
        if (values[v] > values[largest])
            largest = v;
    return largest;
}

bool psk_ranks_before(psk_ranked a, psk_ranked b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
}

/* Is `a` nearer to the root than `b`? first: the root ranks first; otherwise last. */
static bool above(psk_ranked a, psk_ranked b, bool first) {
    return first ? psk_ranks_before(a, b) : psk_ranks_before(b, a);
}

/* Entry i moves down to where it belongs among `count`. */
static void sift_down(psk_ranked *heap, int64_t count, int64_t i, bool first) {
    const psk_ranked moved = heap[i];
    for (int64_t child = 2 * i + 1; child < count; child = 2 * i + 1) {
        if (child + 1 < count && above(heap[child + 1], heap[child], first))
            child++;
        if (!above(heap[child], moved, first))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

static void make_heap(psk_ranked *heap, int64_t count, bool first) {
    for (int64_t i = count / 2 - 1; i >= 0; i--)
        sift_down(heap, count, i, first);
}

void psk_select_largest(int64_t V, const double *values, int64_t k, psk_ranked *heap) {
    for (int64_t v = 0; v < k; v++)
        heap[v] = (psk_ranked){values[v], (int32_t)v};
    make_heap(heap, k, false);
    for (int64_t v = k; v < V; v++) {
        if (!(values[v] > heap[0].value)) /* a tie stays out: its id is larger than all before */
            continue;
        heap[0] = (psk_ranked){values[v], (int32_t)v};
        sift_down(heap, k, 0, false);
    }
}

static int compare_ranks(const void *left, const void *right) {
    const psk_ranked *const a = left, *const b = right;
    return psk_ranks_before(*a, *b) ? -1 : psk_ranks_before(*b, *a);
}

void psk_sort_ranks(psk_ranked *ranks, int64_t count) {
    qsort(ranks, (size_t)count, sizeof *ranks, compare_ranks);
}

void psk_rank_heap_make(psk_ranked *heap, int64_t count) {
    make_heap(heap, count, true);
}

psk_ranked psk_rank_heap_pop(psk_ranked *heap, int64_t count) {
    const psk_ranked popped = heap[0];
    heap[0] = heap[count - 1];
    sift_down(heap, count - 1, 0, true);
    return popped;
}
