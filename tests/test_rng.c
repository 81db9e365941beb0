/* Philox4x32-10: the published vectors, the moments of what is made of it, and independence from the order of calls. */
#include "support.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

#define SEED    20240607
#define SAMPLES 200000

static void known_answers(void **state) {
    (void)state;
    /* From the authors' Random123 distribution, kat_vectors. */
    static const struct {
        uint64_t seed, stream, index;
        uint32_t words[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t words[4];
        psk_philox(cases[i].seed, cases[i].stream, cases[i].index, words);
        assert_memory_equal(words, cases[i].words, sizeof words);
    }
}

static void cursor_walks_the_blocks(void **state) {
    (void)state;
    psk_rng rng = psk_rng_make(SEED, 3);
    for (uint64_t block = 0; block < 5; block++) {
        uint32_t words[4];
        psk_philox(SEED, 3, block, words);
        for (int i = 0; i < 4; i++)
            assert_int_equal(psk_rng_u32(&rng), words[i]);
    }
    assert_int_equal(rng.next, 20);
    psk_rng saved = rng;
    const double next = psk_rng_uniform(&rng);
    assert_true(psk_rng_uniform(&saved) == next);
    assert_true(psk_rng_uniform(&saved) != next);
}

static void uniform_moments(void **state) {
    (void)state;
    psk_rng rng = psk_rng_make(SEED, 1);
    double sum = 0, squares = 0, product = 0, previous = 0.5;
    for (int i = 0; i < SAMPLES; i++) {
        const double x = psk_rng_uniform(&rng);
        assert_true(x >= 0 && x < 1);
        sum += x;
        squares += (x - 0.5) * (x - 0.5);
        product += (x - 0.5) * (previous - 0.5);
        previous = x;
    }
    /* Five standard errors: sqrt(1/12 / n), sqrt(1/180 / n), 1/12 / sqrt(n). */
    PSK_TEST_AT_MOST(fabs(sum / SAMPLES - 0.5), 5 * sqrt(1.0 / 12 / SAMPLES));
    PSK_TEST_AT_MOST(fabs(squares / SAMPLES - 1.0 / 12), 5 * sqrt(1.0 / 180 / SAMPLES));
    PSK_TEST_AT_MOST(fabs(product / SAMPLES), 5.0 / 12 / sqrt(SAMPLES));
}

/* Mean, variance and fourth moment of N(0, 1) within five standard errors: 1, 2 and 96 are the variances of x, x^2,
 * x^4. */
static void check_normal(const double *x, int64_t n) {
    double sum = 0, squares = 0, fourth = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
        fourth += x[i] * x[i] * x[i] * x[i];
    }
    const double samples = (double)n;
    PSK_TEST_AT_MOST(fabs(sum / samples), 5 * sqrt(1 / samples));
    PSK_TEST_AT_MOST(fabs(squares / samples - 1), 5 * sqrt(2 / samples));
    PSK_TEST_AT_MOST(fabs(fourth / samples - 3), 5 * sqrt(96 / samples));
}

static void normal_moments(void **state) {
    (void)state;
    static double x[SAMPLES];
    static float filled[SAMPLES];
    psk_rng_fill_normal(filled, SAMPLES, 0.02f, SEED, 2);
    for (int i = 0; i < SAMPLES; i++)
        x[i] = filled[i] / 0.02;
    check_normal(x, SAMPLES);
    for (int lag = 1; lag <= 3; lag++) { /* four numbers come from one block of words */
        double product = 0;
        for (int i = 0; i < SAMPLES; i += 4)
            product += x[i] * x[i + lag] + x[i + 3 - lag] * x[i + 3];
        PSK_TEST_AT_MOST(fabs(product / (SAMPLES / 2)), 5 / sqrt(SAMPLES / 4));
    }
}

/* Chi-square of `limit` cells against its mean limit - 1 and variance 2 (limit - 1), five standard deviations. */
static void below_is_even(void **state) {
    (void)state;
    static const uint64_t limits[] = {2, 3, 7, 10, 256};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        const uint64_t limit = limits[l];
        psk_rng rng = psk_rng_make(SEED, limit);
        int64_t cells[256] = {0};
        for (int i = 0; i < SAMPLES; i++) {
            const uint64_t x = psk_rng_below(&rng, limit);
            assert_true(x < limit);
            cells[x]++;
        }
        const double expected = (double)SAMPLES / (double)limit, freedom = (double)(limit - 1);
        double chi = 0;
        for (uint64_t i = 0; i < limit; i++)
            chi += ((double)cells[i] - expected) * ((double)cells[i] - expected) / expected;
        PSK_TEST_AT_MOST(chi, freedom + 5 * sqrt(2 * freedom));
    }
    psk_rng rng = psk_rng_make(SEED, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(psk_rng_below(&rng, 1), 0);
}

/* limit = 3 x 2^62: a plain remainder would give the lowest third (x < 2^62) half of the time. */
static void below_has_no_bias_at_large_limits(void **state) {
    (void)state;
    const uint64_t third = (uint64_t)1 << 62;
    psk_rng rng = psk_rng_make(SEED, 4);
    int64_t low = 0;
    for (int i = 0; i < SAMPLES; i++)
        low += psk_rng_below(&rng, 3 * third) < third;
    PSK_TEST_AT_MOST(fabs((double)low / SAMPLES - 1.0 / 3), 5 * sqrt(2.0 / 9 / SAMPLES));
}

static void order_of_calls_does_not_matter(void **state) {
    (void)state;
    enum { N = 1009 };
    float *whole = psk_test_buffer(N), *again = psk_test_buffer(N), *start = psk_test_buffer(7);
    psk_rng_fill_normal(whole, N, 1, SEED, psk_rng_stream("blocks.0.attn.qkv.weight"));
    psk_rng_fill_normal(start, 7, 1, SEED, psk_rng_stream("another"));
    psk_rng_fill_normal(start, 7, 1, SEED, psk_rng_stream("blocks.0.attn.qkv.weight"));
    psk_rng_fill_normal(again, N, 1, SEED, psk_rng_stream("blocks.0.attn.qkv.weight"));
    assert_memory_equal(whole, again, N * sizeof(float));
    assert_memory_equal(whole, start, 7 * sizeof(float)); /* a shorter fill is the beginning of a longer one */
    psk_rng_fill_normal(again, N, 1, SEED + 1, psk_rng_stream("blocks.0.attn.qkv.weight"));
    assert_memory_not_equal(whole, again, N * sizeof(float));

    psk_rng a = psk_rng_make(SEED, 5), b = psk_rng_make(SEED, 6);
    uint32_t turns[2][8];
    for (int i = 0; i < 8; i++) {
        turns[0][i] = psk_rng_u32(&a);
        turns[1][i] = psk_rng_u32(&b);
    }
    psk_rng c = psk_rng_make(SEED, 6);
    for (int i = 0; i < 8; i++)
        assert_int_equal(psk_rng_u32(&c), turns[1][i]);
    psk_test_free(whole);
    psk_test_free(again);
    psk_test_free(start);
}

static void stream_of_a_name(void **state) {
    (void)state;
    assert_true(psk_rng_stream("") == 0xcbf29ce484222325u); /* published values of FNV-1a */
    assert_true(psk_rng_stream("a") == 0xaf63dc4c8601ec8cu);
    assert_true(psk_rng_stream("foobar") == 0x85944171f73967e8u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(cursor_walks_the_blocks),
        cmocka_unit_test(uniform_moments),
        cmocka_unit_test(normal_moments),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(below_has_no_bias_at_large_limits),
        cmocka_unit_test(order_of_calls_does_not_matter),
        cmocka_unit_test(stream_of_a_name),
    };
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
