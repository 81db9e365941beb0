/* psk_sample: greedy, temperature, top_k, top_p, and that the draws follow the weights. */
#include "support.h"

#include "base/memory.h"
#include "polysketch.h"

#include <math.h>
#include <stdbool.h>

#define SEED 20240711

static psk_sampling cuts(float temperature, int64_t top_k, float top_p, uint64_t seed) {
    psk_sampling sampling = psk_sampling_default();
    sampling.temperature = temperature;
    sampling.top_k = top_k;
    sampling.top_p = top_p;
    sampling.seed = seed;
    return sampling;
}

static psk_status sample_status(psk_sampling sampling, int64_t V, const float *logits, const int32_t *history,
                                int64_t history_count, int64_t index) {
    int32_t token;
    return psk_sample(&sampling, V, logits, history, history_count, index, &token);
}

static int32_t sample(psk_sampling sampling, int64_t V, const float *logits, int64_t index) {
    int32_t token = -1;
    PSK_TEST_OK(psk_sample(&sampling, V, logits, NULL, 0, index, &token));
    assert_in_range(token, 0, V - 1);
    return token;
}

static void test_greedy(void **state) {
    (void)state;
    const float one[] = {-3}, ties[] = {1, 7, -2, 7, 7}, close[] = {1, 1, nextafterf(1, 2), 1};
    const psk_sampling greedy = cuts(0, 0, 1, 0);
    assert_int_equal(sample(greedy, 1, one, 0), 0);
    assert_int_equal(sample(greedy, 5, ties, 0), 1);
    assert_int_equal(sample(greedy, 4, close, 0), 2);
    for (int64_t i = 0; i < 50; i++)
        assert_int_equal(sample(greedy, 5, ties, i), 1);
}

static void test_low_temperature(void **state) {
    (void)state;
    const float logits[] = {0, 1, 0.5f}, huge[] = {-3e38f, 3e38f, 0};
    for (int64_t i = 0; i < 50; i++) {
        assert_int_equal(sample(cuts(1e-45f, 0, 1, 0), 3, logits, i), 1);
        assert_int_equal(sample(cuts(1e-3f, 0, 1, 0), 3, logits, i), 1);
        assert_int_equal(sample(cuts(1, 0, 1, 0), 3, huge, i), 1);
    }
}

/* Draws `draws` tokens; the chi-square statistic against probabilities p (0: never drawn). */
static double chi_square(psk_sampling sampling, int64_t V, const float *logits, const double *p, int64_t draws) {
    int64_t counts[64] = {0};
    for (int64_t i = 0; i < draws; i++)
        counts[sample(sampling, V, logits, i)]++;
    double sum = 0;
    for (int64_t v = 0; v < V; v++) {
        const double expected = p[v] * (double)draws, off = (double)counts[v] - expected;
        if (p[v] == 0)
            assert_int_equal(counts[v], 0);
        else
            sum += off * off / expected;
    }
    return sum;
}

/* Probabilities of a softmax at temperature T over the tokens that `kept` allows. */
static void softmax(int64_t V, const float *logits, double T, const bool *kept, double *p) {
    double sum = 0;
    for (int64_t v = 0; v < V; v++)
        sum += p[v] = kept[v] ? exp((double)logits[v] / T) : 0;
    for (int64_t v = 0; v < V; v++)
        p[v] /= sum;
}

/* Quantiles of chi-square at 1 - 1e-4: 5, 3 and 1 degrees of freedom. */
static void test_statistics(void **state) {
    (void)state;
    const float logits[] = {0.3f, -1, 1.2f, 0, 2, -0.5f};
    const bool all[] = {1, 1, 1, 1, 1, 1}, four[] = {1, 0, 1, 1, 1, 0}, two[] = {0, 0, 1, 0, 1, 0};
    double p[6];
    print_message("seed %d\n", SEED);
    softmax(6, logits, 1.3, all, p);
    PSK_TEST_AT_MOST(chi_square(cuts(1.3f, 0, 1, SEED), 6, logits, p, 20000), 25.74);
    softmax(6, logits, 0.7, four, p);
    PSK_TEST_AT_MOST(chi_square(cuts(0.7f, 4, 1, SEED), 6, logits, p, 20000), 21.11);
    softmax(6, logits, 1, two, p); /* p: .526, .236, ..., so two tokens reach .7 */
    PSK_TEST_AT_MOST(chi_square(cuts(1, 0, 0.7f, SEED), 6, logits, p, 20000), 15.14);
    softmax(6, logits, 1, two, p); /* top_p counts from what top_k has left: of 4, two have .82 (of all .76) */
    PSK_TEST_AT_MOST(chi_square(cuts(1, 4, 0.78f, SEED), 6, logits, p, 20000), 15.14);
}

static void test_ties(void **state) {
    (void)state;
    const float flat[] = {5, 5, 5, 5, 5};
    for (int64_t i = 0; i < 200; i++) {
        assert_int_equal(sample(cuts(2, 1, 1, SEED), 5, flat, i), 0); /* ties: the smaller id */
        assert_in_range(sample(cuts(2, 3, 1, SEED), 5, flat, i), 0, 2);
        assert_int_equal(sample(cuts(2, 0, 1e-9f, SEED), 5, flat, i), 0); /* at least one stays */
        assert_int_equal(sample(cuts(2, 0, 0.2f * 0.999f, SEED), 5, flat, i), 0);
        assert_in_range(sample(cuts(2, 0, 0.39f, SEED), 5, flat, i), 0, 1);
        assert_int_equal(sample(cuts(2, 1, 0.01f, SEED), 5, flat, i), 0);
        assert_in_range(sample(cuts(2, 0, 0.5f, SEED), 4, flat, i), 0, 1); /* two halves are enough */
        /* cuts that cut nothing */
        const int32_t plain = sample(cuts(2, 0, 1, SEED), 5, flat, i);
        assert_int_equal(sample(cuts(2, 5, 1, SEED), 5, flat, i), plain);
        assert_int_equal(sample(cuts(2, INT64_MAX, 1, SEED), 5, flat, i), plain);
        assert_int_equal(sample(cuts(2, 0, nextafterf(1, 0), SEED), 5, flat, i), plain);
    }
}

/* A pure function of (seed, index): other calls between do not matter; other seeds and indices give other streams. */
static void test_deterministic(void **state) {
    (void)state;
    float logits[64];
    int32_t first[100];
    int same_seed = 0, same_index = 0;
    for (int v = 0; v < 64; v++)
        logits[v] = (float)((v * 37) % 64) / 32;
    for (int64_t i = 0; i < 100; i++)
        first[i] = sample(cuts(1, 20, 0.9f, SEED), 64, logits, i);
    for (int64_t i = 99; i >= 0; i--) {
        assert_int_equal(sample(cuts(1, 20, 0.9f, SEED), 64, logits, i), first[i]);
        same_seed += sample(cuts(1, 20, 0.9f, SEED + 1), 64, logits, i) == first[i];
        same_index += sample(cuts(1, 20, 0.9f, SEED), 64, logits, i + 1) == first[i];
    }
    assert_in_range(same_seed, 0, 20);
    assert_in_range(same_index, 0, 20);
    sample(cuts(1, 0, 1, UINT64_MAX), 64, logits, INT64_MAX);
}

static void test_refused(void **state) {
    (void)state;
    float logits[] = {1, 2, 3};
    const psk_sampling good = cuts(1, 0, 1, 1);
    const float bad_numbers[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        logits[1] = bad_numbers[i];
        PSK_TEST_FAILS(sample_status(good, 3, logits, NULL, 0, 0), PSK_ERROR_NUMERIC, "token 1", "not finite");
        PSK_TEST_FAILS(sample_status(cuts(0, 0, 1, 1), 3, logits, NULL, 0, 0), PSK_ERROR_NUMERIC, "token 1");
    }
    logits[1] = 2;
    const float bad_temperatures[] = {-1, NAN, INFINITY}, bad_masses[] = {0, -0.1f, 1.01f, NAN};
    for (int i = 0; i < 3; i++)
        PSK_TEST_FAILS(sample_status(cuts(bad_temperatures[i], 0, 1, 1), 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT,
                       "temperature");
    for (int i = 0; i < 4; i++)
        PSK_TEST_FAILS(sample_status(cuts(1, 0, bad_masses[i], 1), 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "top_p");
    PSK_TEST_FAILS(sample_status(cuts(1, -1, 1, 1), 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "top_k -1");
    PSK_TEST_FAILS(sample_status(good, 0, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "vocabulary of 0");
    PSK_TEST_FAILS(sample_status(good, 3, logits, NULL, 0, -1), PSK_ERROR_ARGUMENT, "index -1");
}

static psk_status sample_once(void *logits) {
    return sample_status(cuts(1, 2, 0.9f, 1), 3, logits, NULL, 0, 0);
}

static void test_out_of_memory(void **state) {
    (void)state;
    float logits[] = {1, 2, 3};
    assert_int_equal(psk_test_allocation_failures(sample_once, logits), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),        cmocka_unit_test(test_low_temperature), cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_ties),          cmocka_unit_test(test_deterministic),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
