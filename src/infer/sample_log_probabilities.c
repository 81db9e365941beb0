#include "base/memory.h"
#include "infer/sample.h"

#include <inttypes.h>
#include <math.h>

static psk_status check_wanted(int64_t V, int32_t token, int64_t top) {
    if (token < 0 || token >= V)
        return psk_fail(PSK_ERROR_ARGUMENT, "token %" PRId32 " is outside 0 ... %" PRId64 " (the vocabulary)", token,
                        V - 1);
    if (top < 0 || top > V)
        return psk_fail(PSK_ERROR_ARGUMENT, "top %" PRId64 " is outside 0 ... %" PRId64 " (the vocabulary)", top, V);
    return PSK_OK;
}

/* log(sum of exp(logit - largest)): the log-probability of a token is its logit less the largest, less this. In that
 * order, or large logits would swallow it. */
static double log_sum(int64_t V, const double *logits, double largest) {
    double sum = 0;
    for (int64_t v = 0; v < V; v++)
        sum += exp(logits[v] - largest);
    return log(sum);
}

static psk_status find_top(int64_t V, const double *logits, int64_t top, psk_ranked **ranks) {
    PSK_TRY(psk_alloc((size_t)top * sizeof **ranks, "the likeliest tokens", (void **)ranks));
    if (top > 0)
        psk_select_largest(V, logits, top, *ranks);
    psk_sort_ranks(*ranks, top);
    return PSK_OK;
}

psk_status psk_log_probabilities(int64_t V, const float *logits, int32_t token, int64_t top, float *logprob,
                                 int32_t *top_tokens, float *top_logprobs) {
    psk_status status;
    double *values;
    psk_ranked *ranks;
    PSK_TRY(psk_logits_check(V, logits));
    PSK_TRY(check_wanted(V, token, top));
    PSK_TRY(psk_alloc((size_t)V * sizeof *values, "log-probabilities", (void **)&values));
    for (int64_t v = 0; v < V; v++)
        values[v] = (double)logits[v];
    PSK_TRY_GOTO(status, find_top(V, values, top, &ranks), done);
    const double largest = values[psk_largest(V, values)], sum = log_sum(V, values, largest);
    *logprob = (float)(values[token] - largest - sum);
    for (int64_t i = 0; i < top; i++) {
        top_tokens[i] = ranks[i].id;
        top_logprobs[i] = (float)(ranks[i].value - largest - sum);
    }
    psk_free(ranks);
done:
    psk_free(values);
    return status;
}
