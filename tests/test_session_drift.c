/* Drift: the attention of a long run of steps against the same recurrence in float64.
 *
 * A model of one layer: what its attention reads depends on the tokens alone, so that the only thing which grows old is
 * the state. The test follows some thousands of tokens; `test_session_drift N [NAME]` follows N of every form, or of
 * those whose name holds NAME, and prints the error on the way (docs/numerics.md). */
#include "session_fixture.h"

#include <math.h>

#define LIMIT 1e-4 /* of the outputs of the last WINDOW tokens */

/* 625 sums of blocks, each rounded once by at most 2^-24 of a growing state, a random walk: 6e-7. Added key by key it
 * would be 1e-6 to 2e-6, and grow faster than the length from there. */
#define TEST_TOKENS 20000
#define TEST_LIMIT  1e-6
#define WINDOW      1000

/* The recurrence of one head in float64, by the definition: keys of blocks before the query's own (window: before the
 * one before) are in Z, the others are weighed one by one. */
typedef struct recurrence {
    const psk_attention_config *config;
    int64_t h, r, m, length, folded;
    double *z;         /* m x (h+1) */
    double *k, *v, *b; /* the last `kept` keys, a ring */
    int64_t kept;
} recurrence;

static double *zeros(int64_t n) {
    double *x = calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    return x;
}

static recurrence recurrence_begin(const psk_model_config *config) {
    const psk_sizes s = psk_sizes_of(config);
    recurrence c = {.config = &config->attention, .h = s.h, .r = s.r};
    c.m = psk_attention_state_rows(c.config);
    c.kept = 2 * c.config->block_size + 1;
    c.z = zeros(c.m * (c.h + 1));
    c.k = zeros(c.kept * c.h);
    c.v = zeros(c.kept * c.h);
    c.b = zeros(c.kept * c.r);
    return c;
}

static void recurrence_end(recurrence *c) {
    free(c->z);
    free(c->k);
    free(c->v);
    free(c->b);
}

static bool sketched(const recurrence *c) {
    return c->config->mechanism == PSK_POLYSKETCH;
}

/* psi(x), with `off_diagonal` on the pairs i < j. */
static void features(const recurrence *c, const double *x, double off_diagonal, double *psi) {
    if (!sketched(c))
        memcpy(psi, x, (size_t)c->r * sizeof *psi);
    for (int64_t i = 0, e = 0; sketched(c) && i < c->r; i++)
        for (int64_t j = i; j < c->r; j++)
            psi[e++] = (i == j ? 1 : off_diagonal) * x[i] * x[j];
}

static void fold_key(recurrence *c, int64_t key, double *psi) {
    const double *v = c->v + key % c->kept * c->h;
    features(c, c->b + key % c->kept * c->r, 1, psi);
    for (int64_t e = 0; e < c->m; e++) {
        for (int64_t i = 0; i < c->h; i++)
            c->z[e * (c->h + 1) + i] += psi[e] * v[i];
        c->z[e * (c->h + 1) + c->h] += psi[e];
    }
}

static double inner(int64_t n, const double *x, const double *y) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static double pair_weight(const recurrence *c, const double *q, const double *a, int64_t key) {
    if (c->config->local != PSK_LOCAL_NONE && sketched(c))
        return pow(inner(c->h, q, c->k + key % c->kept * c->h), (double)c->config->degree);
    const double score = inner(c->r, a, c->b + key % c->kept * c->r);
    return sketched(c) ? (double)c->config->far_scale * score * score : score;
}

static void widen(int64_t n, const float *x, double *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
}

/* The token that has just been stepped: its key is taken over, out: h, what its query gets. */
static void recurrence_step(recurrence *c, const psk_activations *act, double *out) {
    const int64_t b = c->config->block_size, t = c->length++;
    const bool local = sketched(c) && c->config->local != PSK_LOCAL_NONE;
    double *psi = zeros(c->m), *q = zeros(c->h), *a = zeros(c->r);
    if (local) {
        widen(c->h, act->q.local, q);
        widen(c->h, act->k.local, c->k + t % c->kept * c->h);
    }
    widen(c->r, act->q.s, a);
    widen(c->r, act->k.s, c->b + t % c->kept * c->r);
    widen(c->h, act->v, c->v + t % c->kept * c->h);
    const int64_t lag = c->config->local == PSK_LOCAL_WINDOW && local ? 1 : 0;
    for (; c->folded < (t / b - lag) * b; c->folded++)
        fold_key(c, c->folded, psi);
    features(c, a, 2, psi);
    double den = sketched(c) ? (double)c->config->denominator_bias : 0;
    const double scale = sketched(c) ? (double)c->config->far_scale : 1;
    memset(out, 0, (size_t)c->h * sizeof *out);
    for (int64_t e = 0; e < c->m; e++) {
        for (int64_t i = 0; i < c->h; i++)
            out[i] += scale * psi[e] * c->z[e * (c->h + 1) + i];
        den += scale * psi[e] * c->z[e * (c->h + 1) + c->h];
    }
    for (int64_t key = c->folded; key <= t; key++) {
        const double weight = pair_weight(c, q, a, key);
        for (int64_t i = 0; i < c->h; i++)
            out[i] += weight * c->v[key % c->kept * c->h + i];
        den += weight;
    }
    for (int64_t i = 0; i < c->h; i++)
        out[i] /= den;
    free(psi);
    free(q);
    free(a);
}

/* Squared errors and sizes since the last report. */
typedef struct drift {
    double error, size;
} drift;

static double take(drift *d) {
    const double relative = d->size > 0 ? sqrt(d->error / d->size) : INFINITY;
    *d = (drift){0, 0};
    return relative;
}

/* rms error of the attention's output over the last WINDOW of `tokens` tokens. */
static double follow(size_t form, int64_t tokens, bool print) {
    psk_model_config config = fixture_config(form);
    config.n_layer = 1;
    config.n_embd = 16;
    config.n_head = config.n_kv_head = 1;
    config.attention.sketch_size = 8;
    config.attention.block_size = 32;
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    psk_model *model = fixture_model(device, &config);
    psk_session *session;
    PSK_TEST_OK(psk_session_create(model, &session));
    recurrence c = recurrence_begin(&config);
    psk_rng rng = psk_rng_make(FIXTURE_SEED, 4000 + form);
    double *want = zeros(c.h), last = NAN;
    drift d = {0, 0};
    for (int64_t t = 1; t <= tokens; t++) {
        const int32_t token = (int32_t)psk_rng_below(&rng, (uint64_t)config.vocab_size);
        PSK_TEST_OK(psk_session_step(&session, 1, &token, NULL));
        recurrence_step(&c, &session->decoder->act, want);
        for (int64_t i = 0; i < c.h; i++) {
            const double off = (double)session->decoder->act.o[i] - want[i];
            d.error += off * off;
            d.size += want[i] * want[i];
        }
        if (t % WINDOW != 0)
            continue;
        last = take(&d);
        const int64_t decade = (int64_t)pow(10, floor(log10((double)t)));
        if (print && (t == tokens || t == decade))
            printf("  %-36s %8lld tokens: %.1e\n", fixture_name(form), (long long)t, last);
    }
    free(want);
    recurrence_end(&c);
    psk_session_free(session);
    psk_model_free(model);
    psk_device_free(device);
    return last;
}

static bool has_state(size_t form) {
    const psk_model_config config = fixture_config(form);
    return psk_attention_state_rows(&config.attention) > 0;
}

static void test_a_long_run_stays_close_to_float64(void **state) {
    (void)state;
    const size_t forms[] = {2,  7,  9,
                            16, 17, 18}; /* performer; random none, window; learned_linear none, block, window */
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        PSK_TEST_AT_MOST(follow(forms[i], TEST_TOKENS, true), TEST_LIMIT);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        bool good = true;
        for (size_t form = 0; form < FIXTURE_FORMS; form++)
            if (has_state(form) && (argc == 2 || strstr(fixture_name(form), argv[2]) != NULL))
                good &= follow(form, atoll(argv[1]), true) <= LIMIT;
        return good ? 0 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_long_run_stays_close_to_float64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
