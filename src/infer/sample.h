/* What sampling and log-probabilities share: looking over logits, and the k largest of V numbers. */
#ifndef PSK_SAMPLE_H
#define PSK_SAMPLE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Errors: ARGUMENT for a V outside 1 ... 2^31 - 1, NUMERIC naming the token whose logit is not finite. */
psk_status psk_logits_check(int64_t V, const float *logits);

/* Index of the largest of V >= 1 finite numbers; ties go to the smaller one. */
int64_t psk_largest(int64_t V, const double *values);

/* A number and where it stands. Ranks: the larger number first, ties to the smaller id. */
typedef struct psk_ranked {
    double value;
    int32_t id;
} psk_ranked;

bool psk_ranks_before(psk_ranked a, psk_ranked b);

/* The k first of V numbers, 1 <= k <= V, into heap (k of them): heap[0] ranks last of them, the others stand in no
 * order. One pass, and log k steps for each number that is among the k first so far. */
void psk_select_largest(int64_t V, const double *values, int64_t k, psk_ranked *heap);

/* Such a heap, or any numbers, in the order of their ranks. */
void psk_sort_ranks(psk_ranked *ranks, int64_t count);

/* A heap whose first entry ranks first: made of `count` entries in any order, and without its first entry, which is
 * returned (count - 1 are left). */
void psk_rank_heap_make(psk_ranked *heap, int64_t count);
psk_ranked psk_rank_heap_pop(psk_ranked *heap, int64_t count);

#endif
