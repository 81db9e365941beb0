/* From logits to a token, in double; the steps are those of polysketch.h, psk_sampling. A vocabulary is large and few
 * of its tokens matter: only what has to be in order is put in order, and exponentials are taken of what top_k left. */
#include "infer/sample.h"

#include "base/memory.h"
#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

psk_sampling psk_sampling_default(void) {
    return (psk_sampling){.temperature = 0.8f, .top_p = 1, .repetition_penalty = 1, .seed = 1};
}

/* ------------------------------------------------------------------------------------------------------------ checks
 */

static psk_status check_counts(const psk_sampling *sampling) {
    if (sampling->top_k < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "top_k %" PRId64 ": it must be >= 0 (0: all tokens)", sampling->top_k);
    if (sampling->penalty_window < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "penalty_window %" PRId64 ": it must be >= 0 (0: the whole history)",
                        sampling->penalty_window);
    if (sampling->bias_count < 0 || (sampling->bias_count > 0 && !sampling->bias))
        return psk_fail(PSK_ERROR_ARGUMENT, "bias_count %" PRId64 "%s", sampling->bias_count,
                        sampling->bias_count < 0 ? ": it must be >= 0" : ", but bias is NULL");
    return PSK_OK;
}

static psk_status check_numbers(const psk_sampling *sampling) {
    const psk_sampling s = *sampling;
    const struct {
        const char *name;
        float value;
        bool good;
        const char *wanted;
    } numbers[] = {
        {"temperature", s.temperature, s.temperature >= 0 && isfinite(s.temperature),
         "a finite number >= 0 (0: always the likeliest)"},
        {"top_p", s.top_p, s.top_p > 0 && s.top_p <= 1, "0 < top_p <= 1 (1: all tokens)"},
        {"min_p", s.min_p, s.min_p >= 0 && s.min_p <= 1, "0 <= min_p <= 1 (0: all tokens)"},
        {"repetition_penalty", s.repetition_penalty, s.repetition_penalty > 0 && isfinite(s.repetition_penalty),
         "a finite number > 0 (1: none)"},
        {"presence_penalty", s.presence_penalty, isfinite(s.presence_penalty), "a finite number (0: none)"},
        {"frequency_penalty", s.frequency_penalty, isfinite(s.frequency_penalty), "a finite number (0: none)"},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (!numbers[i].good)
            return psk_fail(PSK_ERROR_ARGUMENT, "%s %g: expected is %s", numbers[i].name, (double)numbers[i].value,
                            numbers[i].wanted);
    return PSK_OK;
}

psk_status psk_sampling_check(const psk_sampling *sampling, int64_t V) {
    PSK_TRY(check_numbers(sampling));
    PSK_TRY(check_counts(sampling));
    for (int64_t i = 0; i < sampling->bias_count; i++) {
        const psk_logit_bias *const bias = &sampling->bias[i];
        if (bias->token < 0 || bias->token >= V)
            return psk_fail(PSK_ERROR_ARGUMENT, "bias %" PRId64 " is for token %" PRId32 ", outside 0 ... %" PRId64, i,
                            bias->token, V - 1);
        if (!isfinite(bias->bias))
            return psk_fail(PSK_ERROR_ARGUMENT, "the bias of token %" PRId32 " is %g: a finite number is expected",
                            bias->token, (double)bias->bias);
    }
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------- penalties and bias
 */

static bool has_penalties(const psk_sampling *sampling) {
    return sampling->repetition_penalty != 1 || sampling->presence_penalty != 0 || sampling->frequency_penalty != 0;
}

/* counts[v]: how often token v is in the window. */
static psk_status count_history(const psk_sampling *sampling, int64_t V, const int32_t *history, int64_t history_count,
                                int64_t *counts) {
    const bool all = sampling->penalty_window == 0 || sampling->penalty_window > history_count;
    for (int64_t i = all ? 0 : history_count - sampling->penalty_window; i < history_count; i++) {
        if (history[i] < 0 || history[i] >= V)
            return psk_fail(PSK_ERROR_ARGUMENT,
                            "token %" PRId64 " of the history is %" PRId32 ", outside 0 ... %" PRId64, i, history[i],
                            V - 1);
        counts[history[i]]++;
    }
    return PSK_OK;
}

static psk_status apply_penalties(const psk_sampling *sampling, int64_t V, const int32_t *history,
                                  int64_t history_count, double *logits) {
    psk_status status;
    int64_t *counts;
    PSK_TRY(psk_alloc_zero((size_t)V * sizeof *counts, "counts of the tokens", (void **)&counts));
    PSK_TRY_GOTO(status, count_history(sampling, V, history, history_count, counts), done);
    const double repetition = (double)sampling->repetition_penalty;
    for (int64_t v = 0; v < V; v++) {
        if (counts[v] == 0)
            continue;
        logits[v] = logits[v] > 0 ? logits[v] / repetition : logits[v] * repetition;
        logits[v] -= (double)sampling->presence_penalty + (double)counts[v] * (double)sampling->frequency_penalty;
    }
done:
    psk_free(counts);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ choice
 */

/* The tokens that are still in question, in order of their ids; value: logit, later weight. */
typedef struct candidates {
    psk_ranked *list;
    int64_t count;
} candidates;

static int compare_ids(const void *left, const void *right) {
    const psk_ranked *const a = left, *const b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* The top_k largest logits, or all. */
static psk_status take_largest(int64_t top_k, int64_t V, const double *logits, candidates *c) {
    const bool all = top_k == 0 || top_k >= V;
    c->count = all ? V : top_k;
    PSK_TRY(psk_alloc((size_t)c->count * sizeof *c->list, "the likeliest tokens", (void **)&c->list));
    if (all) {
        for (int64_t v = 0; v < V; v++)
            c->list[v] = (psk_ranked){logits[v], (int32_t)v};
        return PSK_OK;
    }
    psk_select_largest(V, logits, top_k, c->list);
    qsort(c->list, (size_t)top_k, sizeof *c->list, compare_ids);
    return PSK_OK;
}

/* Logits -> weights; the sum of them. */
static double weigh(candidates *c, double largest, double temperature) {
    double sum = 0;
    for (int64_t i = 0; i < c->count; i++)
        sum += c->list[i].value = exp((c->list[i].value - largest) / temperature);
    return sum;
}

/* Those that do not rank behind `last` stay. */
static void keep_until(candidates *c, psk_ranked last) {
    int64_t kept = 0;
    for (int64_t i = 0; i < c->count; i++)
        if (!psk_ranks_before(last, c->list[i]))
            c->list[kept++] = c->list[i];
    c->count = kept;
}

/* The fewest from the largest down whose weights reach p * sum. Weights below (1 - p) sum / (2 count) are not looked
 * at: all of them together have less than half of what may be left out. */
static psk_status cut_mass(candidates *c, double p, double sum) {
    psk_ranked *heap, last;
    PSK_TRY(psk_alloc((size_t)c->count * sizeof *heap, "ranks of the tokens", (void **)&heap));
    const double least = (1 - p) * sum / (2 * (double)c->count);
    int64_t count = 0;
    for (int64_t i = 0; i < c->count; i++)
        if (c->list[i].value >= least)
            heap[count++] = c->list[i];
    psk_rank_heap_make(heap, count);

    double reached = 0;
    do {
        last = psk_rank_heap_pop(heap, count--);
        reached += last.value;
    } while (count > 0 && reached < p * sum);
    psk_free(heap);
    keep_until(c, last);
    return PSK_OK;
}

/* In order of id the first whose sum of weights exceeds u * (sum of all). */
static int32_t draw(const candidates *c, double u) {
    double total = 0, sum = 0;
    for (int64_t i = 0; i < c->count; i++)
        total += c->list[i].value;
    int32_t last = c->list[0].id; /* with a weight: the answer if rounding leaves the sum below u * total */
    for (int64_t i = 0; i < c->count; i++) {
        if (!(c->list[i].value > 0))
            continue;
        sum += c->list[i].value;
        last = c->list[i].id;
        if (sum > u * total)
            break;
    }
    return last;
}

/* The uniform number `index` of the seed's stream. */
static double uniform_at(uint64_t seed, int64_t index) {
    psk_rng rng = psk_rng_make(seed, psk_rng_stream("sample"));
    rng.next = 2 * (uint64_t)index; /* a uniform number takes two words */
    return psk_rng_uniform(&rng);
}

static psk_status choose(const psk_sampling *sampling, int64_t V, const double *logits, int64_t index, int32_t *token) {
    const int64_t largest = psk_largest(V, logits);
    if (sampling->temperature == 0) {
        *token = (int32_t)largest;
        return PSK_OK;
    }
    candidates c;
    psk_status status = PSK_OK;
    PSK_TRY(take_largest(sampling->top_k, V, logits, &c));
    const double sum = weigh(&c, logits[largest], (double)sampling->temperature);
    if (sampling->top_p < 1)
        PSK_TRY_GOTO(status, cut_mass(&c, (double)sampling->top_p, sum), done);
    if (sampling->min_p > 0) /* the largest weight is exp(0) = 1 */
        keep_until(&c, (psk_ranked){(double)sampling->min_p, INT32_MAX});
    *token = draw(&c, uniform_at(sampling->seed, index));
done:
    psk_free(c.list);
    return status;
}

psk_status psk_sample(const psk_sampling *sampling, int64_t V, const float *logits, const int32_t *history,
                      int64_t history_count, int64_t index, int32_t *token) {
    PSK_TRY(psk_logits_check(V, logits));
    PSK_TRY(psk_sampling_check(sampling, V));
    if (index < 0 || history_count < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "%s %" PRId64 ": it must be >= 0", index < 0 ? "index" : "history_count",
                        index < 0 ? index : history_count);
    psk_status status;
    double *adjusted;
    PSK_TRY(psk_alloc((size_t)V * sizeof *adjusted, "weights of the tokens", (void **)&adjusted));
    for (int64_t v = 0; v < V; v++)
        adjusted[v] = (double)logits[v];
    if (has_penalties(sampling) && history_count > 0)
        PSK_TRY_GOTO(status, apply_penalties(sampling, V, history, history_count, adjusted), done);
    for (int64_t i = 0; i < sampling->bias_count; i++)
        adjusted[sampling->bias[i].token] += (double)sampling->bias[i].bias;
    status = choose(sampling, V, adjusted, index, token);
done:
    psk_free(adjusted);
    return status;
}
