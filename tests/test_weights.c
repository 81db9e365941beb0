/* Weights at the ends of what floats hold: denominators below the smallest normal float, where nothing is added to
 * them, NaN that carries something, and degrees whose weights are beyond float32. */
#include "attention_cases.h"

/* Every query sees itself alone; its weight has an inverse beyond the largest float. */
static attention_case one_key_case(size_t v, int64_t index) {
    attention_case c = make_case(&variants[v], 1, 1, 1, index);
    c.config.denominator_bias = 0;
    c.config.far_scale = 1;
    return c;
}

/* x: rows x width, all the same number, so that <x, y> of two rows is `product`. */
static void set_products(const float *x, int64_t rows, int64_t width, float product) {
    for (int64_t i = 0; x != NULL && i < rows * width; i++)
        ((float *)x)[i] = sqrtf(product / (float)width);
}

static void check_one_key(const char *device_name, const attention_case *c) {
    const bool exact = c->config.mechanism == PSK_POLYNOMIAL || c->config.local != PSK_LOCAL_NONE;
    const float product = powf(1e-39f, exact ? 1.0f / (float)c->config.degree : 0.5f);
    psk_attention_tensors t = make_tensors(c);
    set_products(t.q, QK(c, QUERIES(c)), c->shape.h, product);
    set_products(t.k, QK(c, KEYS(c)), c->shape.h, product);
    set_products(t.a, QUERIES(c), c->shape.r, product);
    set_products(t.b, KEYS(c), c->shape.r, product);
    psk_device *device = open_device(device_name, 1);
    PSK_TEST_OK(run_planned(device, &c->config, &c->shape, &t));
    psk_device_free(device);
    const int64_t heads = c->shape.B * c->shape.H, d = c->shape.d;
    for (int64_t i = 0; i < heads * d; i++) {
        const double want = (double)t.v[i / d / (c->shape.H / c->shape.Hkv) * d + i % d];
        /* 1e-39 has 5 digits, and sketched it is a sum of up to 36 numbers of fewer. */
        if (!(fabs((double)t.out[i] - want) <= 1e-4 * (fabs(want) + 1)))
            fail_msg("%s, %s, degree %d: %g instead of %g, weight %g", device_name,
                     psk_mechanism_name(c->config.mechanism), (int)c->config.degree, (double)t.out[i], want,
                     (double)t.normaliser[i / d]);
    }
    /* Composed, dout / den is a float of its own, and infinite here. */
    const bool fused = strcmp(device_name, "cpu") == 0 && c->config.direction == PSK_CAUSAL;
    for (int64_t i = 0; fused && i < KEYS(c) * d; i++)
        assert_true(isfinite(t.dv[i]));
    free_tensors(&t);
}

static void a_tiny_weight_that_is_alone_gives_its_value(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (int64_t index = 0; index < 8; index++) {
            const attention_case c = one_key_case(v, index);
            if (c.config.mechanism != PSK_POLYNOMIAL && c.config.mechanism != PSK_POLYSKETCH)
                continue;
            for (size_t device = 0; device < DEVICES; device++)
                check_one_key(devices[device], &c);
        }
}

static psk_model_config model_config(int64_t degree, int64_t h) {
    psk_model_config config;
    PSK_TEST_OK(psk_model_config_preset("tiny", &config));
    config.n_head = 4;
    config.n_embd = 4 * h;
    config.attention.mechanism = PSK_POLYNOMIAL;
    config.attention.degree = degree;
    return config;
}

/* First tokens, of which a score near 0 is usual, by a whole pass and by a session's step. */
static void first_tokens_without_a_bias_are_finite(void **state) {
    (void)state;
    enum { TOKENS = 257, SEEDS = 4 };
    psk_model_config config = model_config(16, 32);
    config.attention.denominator_bias = 0;
    psk_device *device = open_device("cpu", 2);
    const int64_t V = config.vocab_size;
    float *logits = psk_test_buffer(V);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        psk_model *model;
        PSK_TEST_OK(psk_model_create(device, &config, seed, &model));
        for (int32_t token = 0; token < TOKENS; token++) {
            psk_session *session;
            PSK_TEST_OK(psk_model_logits(model, 1, 1, &token, logits));
            assert_true(isfinite(logits[0]));
            PSK_TEST_OK(psk_session_create(model, &session));
            PSK_TEST_OK(psk_session_step(&session, 1, &token, logits));
            assert_true(isfinite(logits[0]));
            psk_session_free(session);
        }
        psk_model_free(model);
    }
    psk_test_free(logits);
    psk_device_free(device);
}

static void degrees_beyond_float32_are_refused(void **state) {
    (void)state;
    psk_model_config config = model_config(20, 64);
    PSK_TEST_OK(psk_model_config_check(&config));
    config = model_config(22, 64);
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "degree is 22", "64", "up to 20");
    config = model_config(16, 256);
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "degree is 16", "256", "up to 14");
    config = model_config(64, 1);
    PSK_TEST_OK(psk_model_config_check(&config));
    config = model_config(22, 64);
    config.attention.mechanism = PSK_SOFTMAX; /* has no degree */
    PSK_TEST_OK(psk_model_config_check(&config));
}

/* A NaN whose last bits are not 0. */
static void any_nan_survives_softmax(void **state) {
    (void)state;
    const uint32_t bits = 0x7fc00001u;
    float nan;
    memcpy(&nan, &bits, sizeof nan);
    for (size_t device = 0; device < DEVICES; device++)
        for (int of_key = 0; of_key < 2; of_key++) {
            attention_case c = make_case(&variants[0], 1, 2, 2, 0);
            psk_attention_tensors t = make_tensors(&c);
            ((float *)(of_key ? t.k : t.q))[0] = nan;
            psk_device *opened = open_device(devices[device], 1);
            PSK_TEST_OK(run_planned(opened, &c.config, &c.shape, &t));
            if (!isnan(t.out[0]))
                fail_msg("%s: NaN in %s gives %g", devices[device], of_key ? "k" : "q", (double)t.out[0]);
            psk_device_free(opened);
            free_tensors(&t);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tiny_weight_that_is_alone_gives_its_value),
        cmocka_unit_test(first_tokens_without_a_bias_are_finite),
        cmocka_unit_test(degrees_beyond_float32_are_refused),
        cmocka_unit_test(any_nan_survives_softmax),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
