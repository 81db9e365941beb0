/* psk_sample: greedy and ties, each filter against plain loops over sorted tokens, distributions, what is refused. */
#include "support.h"

#include "base/memory.h"
#include "base/rng.h"
#include "polysketch.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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

static int32_t sample_after(psk_sampling sampling, int64_t V, const float *logits, const int32_t *history,
                            int64_t history_count, int64_t index) {
    int32_t token = -1;
    PSK_TEST_OK(psk_sample(&sampling, V, logits, history, history_count, index, &token));
    assert_in_range(token, 0, V - 1);
    return token;
}

static int32_t sample(psk_sampling sampling, int64_t V, const float *logits, int64_t index) {
    return sample_after(sampling, V, logits, NULL, 0, index);
}

/* ------------------------------------------------------------------------------------------------------------ oracle
 */

/* The definition in polysketch.h, step by step on a full sort. */
typedef struct oracle {
    int64_t V;
    double *weights;
    bool close; /* a cut of top_p or min_p is decided by rounding: no verdict */
} oracle;

typedef struct rank {
    double value;
    int64_t id;
} rank;

static int compare(const void *left, const void *right) {
    const rank *const a = left, *const b = right;
    if (a->value != b->value)
        return a->value > b->value ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static void oracle_adjust(const psk_sampling *s, const int32_t *history, int64_t history_count, oracle *o) {
    for (int64_t v = 0; v < o->V; v++) {
        int64_t count = 0;
        for (int64_t i = 0; i < history_count; i++)
            count += history[i] == v && (s->penalty_window == 0 || i >= history_count - s->penalty_window);
        double *const x = &o->weights[v];
        if (count > 0) {
            *x = *x > 0 ? *x / (double)s->repetition_penalty : *x * (double)s->repetition_penalty;
            *x -= (double)s->presence_penalty + (double)count * (double)s->frequency_penalty;
        }
        for (int64_t i = 0; i < s->bias_count; i++)
            *x += s->bias[i].token == v ? (double)s->bias[i].bias : 0;
    }
}

/* Logits in o->weights -> weights after all cuts; 0: never drawn. Greedy: one weight is left. */
static void oracle_cut(const psk_sampling *s, oracle *o) {
    rank *const ranks = malloc((size_t)o->V * sizeof *ranks);
    for (int64_t v = 0; v < o->V; v++)
        ranks[v] = (rank){o->weights[v], v};
    qsort(ranks, (size_t)o->V, sizeof *ranks, compare);
    const double largest = ranks[0].value;
    const int64_t k = s->temperature == 0 ? 1 : s->top_k > 0 && s->top_k < o->V ? s->top_k : o->V;
    double mass = 0, sum = 0;
    for (int64_t i = 0; i < k; i++)
        mass += ranks[i].value = s->temperature == 0 ? 1 : exp((ranks[i].value - largest) / (double)s->temperature);
    memset(o->weights, 0, (size_t)o->V * sizeof *o->weights);
    for (int64_t i = 0; i < k; i++) {
        const double wanted = (double)s->top_p * mass;
        o->close |= (s->top_p < 1 && fabs(sum - wanted) < 1e-9 * mass) ||
                    (s->min_p > 0 && s->min_p < 1 && fabs(ranks[i].value - (double)s->min_p) < 1e-9);
        if ((s->top_p < 1 && i > 0 && sum >= wanted) || ranks[i].value < (double)s->min_p)
            break;
        sum += ranks[i].value;
        o->weights[ranks[i].id] = ranks[i].value;
    }
    free(ranks);
}

static oracle oracle_make(const psk_sampling *s, int64_t V, const float *logits, const int32_t *history,
                          int64_t history_count) {
    oracle o = {.V = V, .weights = malloc((size_t)V * sizeof(double))};
    for (int64_t v = 0; v < V; v++)
        o.weights[v] = (double)logits[v];
    oracle_adjust(s, history, history_count, &o);
    oracle_cut(s, &o);
    return o;
}

/* Drawing number `index`, and whether `token` is what it gives; true also where rounding decides. */
static bool oracle_agrees(const oracle *o, const psk_sampling *s, int64_t index, int32_t token) {
    psk_rng rng = psk_rng_make(s->seed, psk_rng_stream("sample"));
    double total = 0, before = 0;
    rng.next = 2 * (uint64_t)index;
    const double u = psk_rng_uniform(&rng);
    for (int64_t v = 0; v < o->V; v++) {
        total += o->weights[v];
        before += v < token ? o->weights[v] : 0;
    }
    const double slack = 1e-9 * total;
    return o->close ||
           (o->weights[token] > 0 && u * total >= before - slack && u * total < before + o->weights[token] + slack);
}

/* ----------------------------------------------------------------------------------------------------------- choices
 */

static void test_greedy(void **state) {
    (void)state;
    const float one[] = {-3}, ties[] = {1, 7, -2, 7, 7}, close[] = {1, 1, nextafterf(1, 2), 1};
    psk_sampling greedy = cuts(0, 0, 1, 0);
    assert_int_equal(sample(greedy, 1, one, 0), 0);
    assert_int_equal(sample(greedy, 5, ties, 0), 1);
    assert_int_equal(sample(greedy, 4, close, 0), 2);
    greedy.top_k = 3;
    greedy.top_p = 0.1f;
    greedy.min_p = 1;
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

/* A vocabulary of one token has one answer, whatever is asked for. */
static void test_single_token(void **state) {
    (void)state;
    const float logits[] = {-1e30f};
    const int32_t history[] = {0, 0, 0};
    const psk_logit_bias bias = {0, -100};
    psk_sampling s = cuts(5, 1, 1e-6f, SEED);
    s.min_p = 1;
    s.repetition_penalty = 1e30f;
    s.presence_penalty = 1e30f;
    s.frequency_penalty = -1e30f;
    s.bias = &bias;
    s.bias_count = 1;
    for (int64_t i = 0; i < 20; i++) {
        assert_int_equal(sample_after(s, 1, logits, history, 3, i), 0);
        assert_int_equal(sample(cuts(0, 0, 1, SEED), 1, logits, i), 0);
    }
}

static void test_ties(void **state) {
    (void)state;
    const float flat[] = {5, 5, 5, 5, 5};
    psk_sampling equal = cuts(2, 0, 1, SEED);
    equal.min_p = 1; /* what is as likely as the likeliest stays */
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
        assert_int_equal(sample(equal, 5, flat, i), plain);
    }
}

/* Greedy choices that a penalty or a bias just does, or just does not, turn over. */
static void test_penalties(void **state) {
    (void)state;
    const float logits[] = {2, 1.5f, -1, -3};
    const int32_t history[] = {0, 2, 0, 0};
    psk_sampling s = cuts(0, 0, 1, 0);
    s.repetition_penalty = 1.3f; /* 2 / 1.3 = 1.54, however often it came */
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 0);
    s.repetition_penalty = 1.4f;
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 1);
    assert_int_equal(sample_after(s, 4, logits, NULL, 0, 0), 0);
    const float negative[] = {-1, -1.9f, -1, -3}; /* a negative logit is multiplied: -1 becomes -2 */
    s.repetition_penalty = 2;
    assert_int_equal(sample_after(s, 4, negative, history, 4, 0), 1);

    s = cuts(0, 0, 1, 0);
    s.presence_penalty = 0.4f; /* once, however often it came */
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 0);
    s.presence_penalty = 0.6f;
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 1);

    s = cuts(0, 0, 1, 0);
    s.frequency_penalty = 0.16f; /* three times */
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 0);
    s.frequency_penalty = 0.17f;
    assert_int_equal(sample_after(s, 4, logits, history, 4, 0), 1);
    s.frequency_penalty = -4; /* repetitions wanted: 2 has -1 + 4, 0 has 2 + 12 */
    assert_int_equal(sample_after(s, 4, logits, history + 1, 1, 0), 2);

    const psk_logit_bias bias[] = {{3, 2}, {3, 2.9f}, {0, -0.2f}}; /* several for one token add up: -3 + 4.9 > 1.8 */
    s = cuts(0, 0, 1, 0);
    s.bias = bias;
    s.bias_count = 3;
    assert_int_equal(sample(s, 4, logits, 0), 3);
    s.bias_count = 2; /* -3 + 4.9 < 2 */
    assert_int_equal(sample(s, 4, logits, 0), 0);
}

/* The token 0 leads by 0.5; each time that it or token 1 is in the window costs 0.6. */
static void test_window(void **state) {
    (void)state;
    const float logits[] = {2, 1.5f, 0};
    const int32_t history[] = {0, 0, 1, 2, 0, 2, 2};
    static const int32_t expected[] = {1, 0, 0, 1, 1, 0, 1, 1, 1}; /* windows 0 (all), 1, ..., 8 */
    psk_sampling s = cuts(0, 0, 1, 0);
    s.frequency_penalty = 0.6f;
    for (int64_t window = 0; window <= 8; window++) {
        s.penalty_window = window;
        assert_int_equal(sample_after(s, 3, logits, history, 7, 0), expected[window]);
    }
    s.penalty_window = INT64_MAX;
    assert_int_equal(sample_after(s, 3, logits, history, 7, 0), 1);
}

/* ---------------------------------------------------------------------------------------------------- against oracle
 */

typedef struct setting {
    psk_sampling sampling;
    psk_logit_bias bias[4];
    float *logits;
    int32_t history[40];
    int64_t V, history_count;
} setting;

static float pick(psk_rng *rng, const float *values, uint64_t count) {
    return values[psk_rng_below(rng, count)];
}
#define PICK(rng, ...) pick(rng, (const float[]){__VA_ARGS__}, sizeof(const float[]){__VA_ARGS__} / sizeof(float))

/* Any setting; logits in steps of 1/4 in half of the cases, so that there are ties. */
static void setting_make(setting *s, psk_rng *rng, int64_t V) {
    const bool coarse = psk_rng_below(rng, 2);
    s->V = V;
    s->logits = psk_test_buffer(V);
    psk_rng_fill_normal(s->logits, V, 3, SEED, psk_rng_u32(rng));
    for (int64_t v = 0; v < V && coarse; v++)
        s->logits[v] = floorf(4 * s->logits[v]) / 4;
    s->history_count = (int64_t)psk_rng_below(rng, 41);
    for (int64_t i = 0; i < s->history_count; i++)
        s->history[i] = (int32_t)psk_rng_below(rng, (uint64_t)V);
    for (int i = 0; i < 4; i++)
        s->bias[i] = (psk_logit_bias){(int32_t)psk_rng_below(rng, (uint64_t)V), PICK(rng, -100, -1, 0.3f, 4)};
    s->sampling = (psk_sampling){.temperature = PICK(rng, 0, 0.3f, 1, 1, 2, 50),
                                 .top_k = (int64_t)PICK(rng, 0, 0, 1, 2, 5, 40, 1e9f),
                                 .top_p = PICK(rng, 1, 1, 0.97f, 0.7f, 0.31f, 0.01f),
                                 .min_p = PICK(rng, 0, 0, 0.01f, 0.11f, 0.6f, 1),
                                 .repetition_penalty = PICK(rng, 1, 1, 1.2f, 0.8f, 3),
                                 .presence_penalty = PICK(rng, 0, 0, 0.7f, -1),
                                 .frequency_penalty = PICK(rng, 0, 0, 0.2f, -0.4f),
                                 .penalty_window = (int64_t)PICK(rng, 0, 1, 7, 64),
                                 .bias = s->bias,
                                 .bias_count = (int64_t)psk_rng_below(rng, 5),
                                 .seed = SEED};
}

static void check_setting(const setting *s, int64_t number, int64_t draws, int64_t *verdicts) {
    oracle o = oracle_make(&s->sampling, s->V, s->logits, s->history, s->history_count);
    for (int64_t index = 0; index < draws; index++) {
        const int32_t token = sample_after(s->sampling, s->V, s->logits, s->history, s->history_count, index);
        if (!oracle_agrees(&o, &s->sampling, index, token)) {
            print_error("setting %lld of seed %d: token %d at index %lld has weight %g\n", (long long)number, SEED,
                        (int)token, (long long)index, o.weights[token]);
            fail();
        }
    }
    *verdicts += !o.close;
    free(o.weights);
}

static void test_against_oracle(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 5, 17, 64, 257, 1009};
    psk_rng rng = psk_rng_make(SEED, 1);
    int64_t verdicts = 0;
    for (int64_t number = 0; number < 2000; number++) {
        setting s;
        setting_make(&s, &rng, sizes[number % 8]);
        check_setting(&s, number, 12, &verdicts);
        psk_test_free(s.logits);
    }
    assert_in_range(verdicts, 1500, 2000); /* rounding must not decide so often that nothing is tested */
}

static void test_large_vocabulary(void **state) {
    (void)state;
    psk_rng rng = psk_rng_make(SEED, 2);
    int64_t verdicts = 0;
    for (int64_t number = 0; number < 40; number++) {
        setting s;
        setting_make(&s, &rng, 50257);
        check_setting(&s, number, 3, &verdicts);
        psk_test_free(s.logits);
    }
    assert_in_range(verdicts, 20, 40);
}

/* ------------------------------------------------------------------------------------------------------ distribution
 */

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
    psk_sampling least = cuts(1, 0, 1, SEED);
    least.min_p = 0.12f; /* exp(0 - 2) = .135 stays, exp(-.5 - 2) = .082 does not */
    softmax(6, logits, 1, four, p);
    PSK_TEST_AT_MOST(chi_square(least, 6, logits, p, 20000), 21.11);
    const psk_logit_bias bias[] = {{4, -100}, {1, 2}};
    const float biased[] = {0.3f, 1, 1.2f, 0, -98, -0.5f};
    psk_sampling with_bias = cuts(1, 0, 1, SEED);
    with_bias.bias = bias;
    with_bias.bias_count = 2;
    softmax(6, biased, 1, (const bool[]){1, 1, 1, 1, 0, 1}, p);
    PSK_TEST_AT_MOST(chi_square(with_bias, 6, logits, p, 20000), 23.52); /* 4 degrees */
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

/* ----------------------------------------------------------------------------------------------------------- refused
 */

static void test_refused_logits(void **state) {
    (void)state;
    float logits[] = {1, 2, 3};
    const float bad_numbers[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        logits[1] = bad_numbers[i];
        PSK_TEST_FAILS(sample_status(cuts(1, 0, 1, 1), 3, logits, NULL, 0, 0), PSK_ERROR_NUMERIC, "token 1",
                       "not finite");
        PSK_TEST_FAILS(sample_status(cuts(0, 0, 1, 1), 3, logits, NULL, 0, 0), PSK_ERROR_NUMERIC, "token 1");
    }
    PSK_TEST_FAILS(sample_status(cuts(1, 0, 1, 1), 0, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "vocabulary of 0");
}

/* Each number of psk_sampling with values that are refused, by name. */
static void test_refused_numbers(void **state) {
    (void)state;
    const float logits[] = {1, 2, 3};
    psk_sampling s;
    const struct {
        float *field;
        const char *name;
        float bad[5];
    } cases[] = {
        {&s.temperature, "temperature", {-1, NAN, INFINITY, -INFINITY, -1e-30f}},
        {&s.top_p, "top_p", {0, -0.1f, 1.01f, NAN, INFINITY}},
        {&s.min_p, "min_p", {-0.1f, 1.01f, NAN, INFINITY, -INFINITY}},
        {&s.repetition_penalty, "repetition_penalty", {0, -1, NAN, INFINITY, -INFINITY}},
        {&s.presence_penalty, "presence_penalty", {NAN, INFINITY, -INFINITY, NAN, NAN}},
        {&s.frequency_penalty, "frequency_penalty", {NAN, INFINITY, -INFINITY, NAN, NAN}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int j = 0; j < 5; j++) {
            s = psk_sampling_default();
            *cases[i].field = cases[i].bad[j];
            PSK_TEST_FAILS(sample_status(s, 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, cases[i].name);
            PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, cases[i].name);
        }
}

static void test_refused_counts(void **state) {
    (void)state;
    const float logits[] = {1, 2, 3};
    const int32_t history[] = {3, 0, 1};
    const psk_logit_bias outside[] = {{0, 1}, {3, 1}}, negative = {-1, 1}, not_finite = {2, NAN};
    psk_sampling s = cuts(1, -1, 1, 1);
    PSK_TEST_FAILS(sample_status(s, 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "top_k -1");
    s = psk_sampling_default();
    PSK_TEST_FAILS(sample_status(s, 3, logits, NULL, 0, -1), PSK_ERROR_ARGUMENT, "index -1");
    PSK_TEST_FAILS(sample_status(s, 3, logits, NULL, -2, 0), PSK_ERROR_ARGUMENT, "history_count -2");
    s.penalty_window = -5;
    PSK_TEST_FAILS(sample_status(s, 3, logits, NULL, 0, 0), PSK_ERROR_ARGUMENT, "penalty_window -5");
    s = psk_sampling_default();
    s.bias_count = -1;
    PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, "bias_count -1");
    s.bias_count = 2;
    PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, "bias is NULL");
    s.bias = outside;
    PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, "bias 1", "token 3");
    PSK_TEST_OK(psk_sampling_check(&s, 4));
    s.bias_count = 1;
    s.bias = &negative;
    PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, "token -1");
    s.bias = &not_finite;
    PSK_TEST_FAILS(psk_sampling_check(&s, 3), PSK_ERROR_ARGUMENT, "token 2", "nan");
    s = psk_sampling_default();
    PSK_TEST_OK(sample_status(s, 3, logits, history, 3, 0)); /* without penalties nobody looks */
    s.presence_penalty = 1;
    PSK_TEST_FAILS(sample_status(s, 3, logits, history, 3, 0), PSK_ERROR_ARGUMENT, "token 0 of the history is 3");
    s.penalty_window = 2;
    PSK_TEST_OK(sample_status(s, 3, logits, history, 3, 0));
}

static psk_status sample_once(void *logits) {
    const int32_t history[] = {1};
    psk_sampling s = cuts(1, 2, 0.9f, 1);
    s.presence_penalty = 1;
    return sample_status(s, 3, logits, history, 1, 0);
}

static void test_out_of_memory(void **state) {
    (void)state;
    float logits[] = {1, 2, 3};
    assert_int_equal(psk_test_allocation_failures(sample_once, logits), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_low_temperature),
        cmocka_unit_test(test_single_token),   cmocka_unit_test(test_ties),
        cmocka_unit_test(test_penalties),      cmocka_unit_test(test_window),
        cmocka_unit_test(test_against_oracle), cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_statistics),     cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_refused_logits), cmocka_unit_test(test_refused_numbers),
        cmocka_unit_test(test_refused_counts), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
