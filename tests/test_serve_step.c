/* A step of several sessions, one of which cannot go on: the others have the logits that they would have alone. */
#include "serve_step.h"
#include "session_fixture.h"

#define COUNT 4

typedef struct crowd {
    psk_device *device;
    psk_model *model;
    psk_session *sessions[COUNT];
    int64_t V;
    float *logits;   /* COUNT x V */
    int32_t *tokens; /* PSK_FIRST_ROWS */
} crowd;

/* Session 1 has a cache that grows with its next token, if it has one that grows. */
static crowd crowd_begin(const psk_model_config *config) {
    crowd c = {.device = fixture_device(1), .V = config->vocab_size};
    if (c.device->has_bf16) /* products in bfloat16 take memory in the middle of a step */
        PSK_TEST_OK(psk_device_set_precision(c.device, PSK_PRECISION_BF16));
    c.model = fixture_model(c.device, config);
    c.tokens = fixture_tokens(PSK_FIRST_ROWS, c.V, 1);
    c.logits = psk_test_buffer(COUNT * c.V);
    for (int64_t i = 0; i < COUNT; i++) {
        PSK_TEST_OK(psk_session_create(c.model, &c.sessions[i]));
        PSK_TEST_OK(psk_session_append(c.sessions[i], c.tokens, i == 1 ? PSK_FIRST_ROWS : 10 + i, NULL));
    }
    return c;
}

static void crowd_end(crowd *c) {
    for (int64_t i = 0; i < COUNT; i++)
        psk_session_free(c->sessions[i]);
    psk_test_free(c->logits);
    free(c->tokens);
    psk_model_free(c->model);
    psk_device_free(c->device);
}

/* The same with the logits that each session has of its next token when nobody is beside it. */
static crowd crowd_alone(const psk_model_config *config) {
    crowd c = crowd_begin(config);
    for (int64_t i = 0; i < COUNT; i++)
        PSK_TEST_OK(psk_session_step(&c.sessions[i], 1, &c.tokens[i], c.logits + i * c.V));
    return c;
}

static void check_row(const crowd *c, const crowd *alone, int64_t i) {
    assert_memory_equal(c->logits + i * c->V, alone->logits + i * c->V, (size_t)c->V * sizeof(float));
}

static void a_session_at_its_end_fails_alone(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    crowd c = crowd_begin(&config), alone = crowd_alone(&config);
    serve_error errors[COUNT];
    PSK_TEST_OK(psk_session_skip(c.sessions[2], INT32_MAX - psk_session_length(c.sessions[2])));
    serve_step(c.sessions, COUNT, c.tokens, c.V, c.logits, errors);
    for (int64_t i = 0; i < COUNT; i++) {
        assert_int_equal(errors[i].http, i == 2 ? 400 : 0);
        if (i != 2)
            check_row(&c, &alone, i);
    }
    assert_non_null(strstr(errors[2].message, "2147483647"));
    crowd_end(&c);
    crowd_end(&alone);
}

/* Whether a step of all fails with its n-th allocation. */
static bool fails(const psk_model_config *config, int64_t n) {
    crowd c = crowd_begin(config);
    psk_alloc_fail_after(n);
    const psk_status status = psk_session_step(c.sessions, COUNT, c.tokens, c.logits);
    psk_alloc_fail_after(0);
    crowd_end(&c);
    return status != PSK_OK;
}

/* Returns how many sessions ended in the middle of a token, which alone may have an error. */
static int64_t fail_one(const psk_model_config *config, const crowd *alone, int64_t n) {
    crowd c = crowd_begin(config);
    serve_error errors[COUNT];
    int64_t torn = 0;
    psk_alloc_fail_after(n);
    serve_step(c.sessions, COUNT, c.tokens, c.V, c.logits, errors);
    psk_alloc_fail_after(0);
    for (int64_t i = 0; i < COUNT; i++) {
        torn += c.sessions[i]->torn;
        assert_int_equal(errors[i].http, c.sessions[i]->torn ? 503 : 0);
        if (errors[i].http)
            assert_non_null(strstr(errors[i].message, "out of memory"));
        else
            check_row(&c, alone, i);
    }
    crowd_end(&c);
    return torn;
}

/* Every allocation of a step fails once. */
static int64_t fail_each_allocation(const psk_model_config *config) {
    crowd alone = crowd_alone(config);
    int64_t torn = 0;
    for (int64_t n = 1; fails(config, n); n++)
        torn += fail_one(config, &alone, n);
    crowd_end(&alone);
    return torn;
}

static void an_allocation_that_fails_before_the_layers_fails_nobody(void **state) {
    (void)state;
    psk_model_config config = fixture_config(0);
    assert_int_equal(config.attention.mechanism, PSK_SOFTMAX); /* with a cache that grows */
    fail_each_allocation(&config);
}

static void one_that_fails_among_the_layers_says_so(void **state) {
    (void)state;
    psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    config.n_embd = 128; /* wide enough for products that take memory */
    config.n_head = config.n_kv_head = 2;
    psk_device *device = fixture_device(1);
    const bool has_bf16 = device->has_bf16;
    psk_device_free(device);
    assert_true(fail_each_allocation(&config) > 0 || !has_bf16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_at_its_end_fails_alone),
        cmocka_unit_test(an_allocation_that_fails_before_the_layers_fails_nobody),
        cmocka_unit_test(one_that_fails_among_the_layers_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
