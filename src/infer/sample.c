/* From logits to a token, in double.
 *
 *   1. temperature T: weight w_v = exp((logit_v - max) / T); T = 0 picks the largest logit, ties go to the smaller id
 *   2. top_k: the k largest logits stay, ties go to the smaller id
 *   3. top_p: of these the fewest from the largest down whose weights reach top_p of what is left after top_k
 *   4. the kept tokens in order of id; the first whose sum of weights exceeds u * (sum of all kept), u = number `index`
 *      of the stream of the seed, uniform in [0, 1) */
#include "base/memory.h"
#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

psk_sampling psk_sampling_default(void) {
    return (psk_sampling){.temperature = 0.8f, .top_k = 0, .top_p = 1, .seed = 1};
}

static psk_status check_sampling(const psk_sampling *sampling, int64_t V, int64_t index) {
    if (V < 1 || V > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "a vocabulary of %" PRId64 " tokens: 1 ... 2^31 - 1 are possible", V);
    if (index < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "token number %" PRId64 " of a stream: it must be >= 0", index);
    if (!(sampling->temperature >= 0 && isfinite(sampling->temperature)))
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "temperature %g: a finite number >= 0 is expected (0: always the likeliest)",
                        (double)sampling->temperature);
    if (sampling->top_k < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "top_k %" PRId64 ": it must be >= 0 (0: all tokens)", sampling->top_k);
    if (!(sampling->top_p > 0 && sampling->top_p <= 1))
        return psk_fail(PSK_ERROR_ARGUMENT, "top_p %g is outside 0 < top_p <= 1 (1: all tokens)",
                        (double)sampling->top_p);
    return PSK_OK;
}

/* Also the largest one: ties go to the smaller id. */
static psk_status check_logits(int64_t V, const float *logits, int64_t *largest) {
    *largest = 0;
    for (int64_t v = 0; v < V; v++) {
        if (!isfinite(logits[v]))
            return psk_fail(PSK_ERROR_NUMERIC, "the logit of token %" PRId64 " is %g: the model's output is not finite",
                            v, (double)logits[v]);
        if (logits[v] > logits[*largest])
            *largest = v;
    }
    return PSK_OK;
}

typedef struct ranked_token {
    float logit;
    int32_t id;
} ranked_token;

static int compare_ranks(const void *left, const void *right) {
    const ranked_token *const a = left, *const b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

/* weights[v] = 0 for every token that top_k or top_p cuts off. */
static psk_status cut_tail(const psk_sampling *sampling, int64_t V, const float *logits, double *weights) {
    ranked_token *ranks;
    PSK_TRY(psk_alloc((size_t)V * sizeof *ranks, "ranks of the tokens", (void **)&ranks));
    for (int64_t v = 0; v < V; v++)
        ranks[v] = (ranked_token){logits[v], (int32_t)v};
    qsort(ranks, (size_t)V, sizeof *ranks, compare_ranks);

    const int64_t kept = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V;
    double mass = 0;
    for (int64_t i = 0; i < kept; i++)
        mass += weights[ranks[i].id];
    const double wanted = (double)sampling->top_p * mass;
    double sum = 0;
    int64_t i = 0;
    do
        sum += weights[ranks[i++].id];
    while (i < kept && (sampling->top_p == 1 || sum < wanted)); /* 1 means all, whatever the rounding of the sums */
    for (; i < V; i++)
        weights[ranks[i].id] = 0;
    psk_free(ranks);
    return PSK_OK;
}

static int32_t draw(int64_t V, const double *weights, double u) {
    double total = 0, sum = 0;
    for (int64_t v = 0; v < V; v++)
        total += weights[v];
    int64_t last = 0; /* of those kept: the answer if rounding leaves the sum below u * total */
    for (int64_t v = 0; v < V; v++) {
        if (!(weights[v] > 0))
            continue;
        sum += weights[v];
        last = v;
        if (sum > u * total)
            break;
    }
    return (int32_t)last;
}

psk_status psk_sample(const psk_sampling *sampling, int64_t V, const float *logits, int64_t index, int32_t *token) {
    int64_t largest;
    PSK_TRY(check_sampling(sampling, V, index));
    PSK_TRY(check_logits(V, logits, &largest));
    if (sampling->temperature == 0) {
        *token = (int32_t)largest;
        return PSK_OK;
    }
    psk_status status = PSK_OK;
    double *weights;
    PSK_TRY(psk_alloc((size_t)V * sizeof *weights, "weights of the tokens", (void **)&weights));
    for (int64_t v = 0; v < V; v++)
        weights[v] = exp(((double)logits[v] - (double)logits[largest]) / (double)sampling->temperature);
    if (sampling->top_p < 1 || (sampling->top_k > 0 && sampling->top_k < V))
        PSK_TRY_GOTO(status, cut_tail(sampling, V, logits, weights), done);

    psk_rng rng = psk_rng_make(sampling->seed, psk_rng_stream("sample"));
    rng.next = 2 * (uint64_t)index; /* a uniform number takes two words */
    *token = draw(V, weights, psk_rng_uniform(&rng));
done:
    psk_free(weights);
    return status;
}
