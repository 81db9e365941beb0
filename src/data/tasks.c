#include "data/tasks.h"

#include "base/rng.h"

#include <inttypes.h>

/* Words of a stream that one example may use: more than any takes. */
#define WORDS_AN_EXAMPLE_LOG2 33

static const char *const task_names[] = {
    [PSK_TASK_SELECTIVE_COPYING] = "selective_copying", [PSK_TASK_INDUCTION_HEADS] = "induction_heads"};
#define TASK_COUNT (int)(sizeof task_names / sizeof task_names[0])

const char *psk_task_name(psk_task_kind kind) {
    return (int)kind >= 0 && (int)kind < TASK_COUNT ? task_names[kind] : NULL;
}

psk_task psk_task_default(psk_task_kind kind) {
    return (psk_task){.kind = kind, .vocab_size = 16, .copies = 16, .shortest = 16, .seed = 1};
}

int64_t psk_task_answers(const psk_task *task) {
    return task->kind == PSK_TASK_SELECTIVE_COPYING ? task->copies : 1;
}

static int64_t least_length(const psk_task *task) {
    return task->kind == PSK_TASK_SELECTIVE_COPYING ? 2 * task->copies : 3;
}

psk_status psk_task_check(const psk_task *task, int64_t N) {
    if (!psk_task_name(task->kind))
        return psk_fail(PSK_ERROR_ARGUMENT, "task %d: there is none", (int)task->kind);
    if (task->vocab_size < 3 || task->vocab_size > 1 << 24)
        return psk_fail(PSK_ERROR_ARGUMENT, "vocab_size of task %s is %" PRId64 ", must be 3 ... 2^24",
                        psk_task_name(task->kind), task->vocab_size);
    if (task->kind == PSK_TASK_SELECTIVE_COPYING && (task->copies < 1 || task->copies > 1 << 24))
        return psk_fail(PSK_ERROR_ARGUMENT, "copies is %" PRId64 ", must be 1 ... 2^24", task->copies);
    if (task->shortest < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "shortest is %" PRId64 ", must not be negative", task->shortest);
    if (N < least_length(task) || N > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "%s needs sequences of %" PRId64 " ... 2^31 - 1 tokens, not %" PRId64,
                        psk_task_name(task->kind), least_length(task), N);
    return PSK_OK;
}

/* The data tokens by selection sampling (Knuth, algorithm 3.4.2 S): K places of N - K, in order. */
static void fill_copying(const psk_task *task, int64_t N, psk_rng *rng, int32_t *tokens, int32_t *targets) {
    const int64_t K = task->copies, text = N - K;
    int64_t chosen = 0;
    for (int64_t n = 0; n < text; n++) {
        tokens[n] = 0;
        if (psk_rng_below(rng, (uint64_t)(text - n)) >= (uint64_t)(K - chosen))
            continue;
        tokens[n] = 1 + (int32_t)psk_rng_below(rng, (uint64_t)task->vocab_size - 2);
        targets[text + chosen++] = tokens[n];
    }
    tokens[text] = (int32_t)task->vocab_size - 1;
    for (int64_t i = 1; i < K; i++)
        tokens[text + i] = targets[text + i - 1];
}

static void fill_induction(const psk_task *task, int64_t N, psk_rng *rng, int32_t *tokens, int32_t *targets) {
    const int32_t marker = (int32_t)task->vocab_size - 1;
    for (int64_t n = 0; n < N; n++)
        tokens[n] = (int32_t)psk_rng_below(rng, (uint64_t)marker);
    const int64_t place = (int64_t)psk_rng_below(rng, (uint64_t)N - 2);
    tokens[place] = tokens[N - 1] = marker;
    targets[N - 1] = tokens[place + 1];
}

int64_t psk_task_halvings(const psk_task *task, int64_t N) {
    const int64_t least = task->shortest > least_length(task) ? task->shortest : least_length(task);
    int64_t halvings = 0;
    while (task->shortest > 0 && N % 2 == 0 && N / 2 >= least) {
        N /= 2;
        halvings++;
    }
    return halvings;
}

int64_t psk_task_step_length(const psk_task *task, int64_t N, int64_t step) {
    psk_rng rng = psk_rng_make(task->seed, psk_rng_stream("task lengths"));
    rng.next = (uint64_t)step << WORDS_AN_EXAMPLE_LOG2;
    return N >> psk_rng_below(&rng, (uint64_t)psk_task_halvings(task, N) + 1);
}

void psk_task_fill(const psk_task *task, psk_task_part part, int64_t N, int64_t first, int64_t count, int32_t *tokens,
                   int32_t *targets) {
    const uint64_t stream = psk_rng_stream(task_names[task->kind]) + (uint64_t)part;
    PSK_ASSERT(first >= 0 && first + count <= INT64_C(1) << 31);
    for (int64_t i = 0; i < count; i++) {
        psk_rng rng = psk_rng_make(task->seed, stream);
        rng.next = (uint64_t)(first + i) << WORDS_AN_EXAMPLE_LOG2;
        int32_t *const x = tokens + i * N, *const y = targets + i * N;
        for (int64_t n = 0; n < N; n++)
            y[n] = -1;
        if (task->kind == PSK_TASK_SELECTIVE_COPYING)
            fill_copying(task, N, &rng, x, y);
        else
            fill_induction(task, N, &rng, x, y);
    }
}

psk_status psk_task_examples(const psk_task *task, int64_t N, int64_t first, int64_t count, int32_t *tokens,
                             int32_t *targets) {
    PSK_TRY(psk_task_check(task, N));
    if (first < 0 || count < 0 || count > INT32_MAX || first > INT32_MAX - count)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "examples %" PRId64 " ... %" PRId64 " + %" PRId64 " - 1: there are 0 ... 2^31 - 1", first,
                        first, count);
    psk_task_fill(task, PSK_TASK_TEST, N, first, count, tokens, targets);
    return PSK_OK;
}
