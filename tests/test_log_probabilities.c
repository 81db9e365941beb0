/* psk_log_probabilities against long double loops; ties, extremes, what is refused. */
#include "support.h"

#include "base/rng.h"
#include "polysketch.h"

#include <math.h>
#include <stdbool.h>

#define SEED 20240712

/* log(softmax) of every token by its definition. */
static void reference(int64_t V, const float *logits, double *out) {
    long double sum = 0;
    float largest = logits[0];
    for (int64_t v = 0; v < V; v++)
        largest = logits[v] > largest ? logits[v] : largest;
    for (int64_t v = 0; v < V; v++)
        sum += expl((long double)logits[v] - (long double)largest);
    for (int64_t v = 0; v < V; v++)
        out[v] = (double)((long double)logits[v] - (long double)largest - logl(sum));
}

/* The first `top` of the tokens not yet taken, one after the other. */
static void check_top(int64_t V, const double *want, int64_t top, const int32_t *tokens, const float *logprobs) {
    bool taken[1024] = {false};
    for (int64_t i = 0; i < top; i++) {
        int64_t best = -1;
        for (int64_t v = 0; v < V; v++)
            if (!taken[v] && (best < 0 || want[v] > want[best]))
                best = v;
        taken[best] = true;
        assert_int_equal(tokens[i], best);
        PSK_TEST_AT_MOST(fabs((double)logprobs[i] - want[best]), 1e-6 * fabs(want[best]) + 1e-7);
    }
}

static void test_against_definition(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 17, 257, 1009};
    psk_rng rng = psk_rng_make(SEED, 0);
    print_message("seed %d\n", SEED);
    for (int round = 0; round < 60; round++) {
        const int64_t V = sizes[round % 6], top = (int64_t)psk_rng_below(&rng, (uint64_t)V + 1);
        float *const logits = psk_test_buffer(V), *const top_logprobs = psk_test_buffer(top);
        int32_t tokens[1024];
        double want[1024];
        psk_rng_fill_normal(logits, V, 5, SEED, psk_rng_u32(&rng));
        for (int64_t v = 0; v < V && round % 2; v++)
            logits[v] = floorf(logits[v]); /* with ties and without */
        reference(V, logits, want);
        for (int64_t token = 0; token < V; token += 1 + V / 7) {
            float logprob = NAN;
            PSK_TEST_OK(psk_log_probabilities(V, logits, (int32_t)token, top, &logprob, tokens, top_logprobs));
            PSK_TEST_AT_MOST(fabs((double)logprob - want[token]), 1e-6 * fabs(want[token]) + 1e-7);
            check_top(V, want, top, tokens, top_logprobs);
        }
        psk_test_free(logits);
        psk_test_free(top_logprobs);
    }
}

static void test_extremes(void **state) {
    (void)state;
    const float apart[] = {-3e38f, 3e38f, 3e38f}, single[] = {-7e30f};
    float logprob, top[3];
    int32_t tokens[3];
    PSK_TEST_OK(psk_log_probabilities(3, apart, 0, 3, &logprob, tokens, top));
    assert_true(isinf(logprob) && logprob < 0); /* -6e38 is no float */
    assert_int_equal(tokens[0], 1);
    assert_int_equal(tokens[1], 2);
    assert_int_equal(tokens[2], 0);
    PSK_TEST_AT_MOST(fabs((double)top[1] + log(2)), 1e-7);
    PSK_TEST_OK(psk_log_probabilities(1, single, 0, 0, &logprob, NULL, NULL));
    assert_true(logprob == 0);
}

static void test_refused(void **state) {
    (void)state;
    float logits[] = {1, 2, 3}, logprob, top[4];
    int32_t tokens[4];
    PSK_TEST_FAILS(psk_log_probabilities(3, logits, 3, 0, &logprob, NULL, NULL), PSK_ERROR_ARGUMENT, "token 3");
    PSK_TEST_FAILS(psk_log_probabilities(3, logits, -1, 0, &logprob, NULL, NULL), PSK_ERROR_ARGUMENT, "token -1");
    PSK_TEST_FAILS(psk_log_probabilities(3, logits, 0, 4, &logprob, tokens, top), PSK_ERROR_ARGUMENT, "top 4");
    PSK_TEST_FAILS(psk_log_probabilities(3, logits, 0, -1, &logprob, tokens, top), PSK_ERROR_ARGUMENT, "top -1");
    PSK_TEST_FAILS(psk_log_probabilities(0, logits, 0, 0, &logprob, NULL, NULL), PSK_ERROR_ARGUMENT, "vocabulary");
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        logits[2] = bad[i];
        PSK_TEST_FAILS(psk_log_probabilities(3, logits, 0, 0, &logprob, NULL, NULL), PSK_ERROR_NUMERIC, "token 2");
    }
}

static psk_status run_once(void *unused) {
    (void)unused;
    const float logits[] = {1, 2, 3};
    float logprob, top[2];
    int32_t tokens[2];
    return psk_log_probabilities(3, logits, 0, 2, &logprob, tokens, top);
}

static void test_out_of_memory(void **state) {
    (void)state;
    assert_int_equal(psk_test_allocation_failures(run_once, NULL), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("log_probabilities", tests, NULL, NULL);
}
