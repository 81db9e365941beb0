/* What the tests of sessions share: a model with a sequence and its logits by the parallel form. */
#ifndef PSK_TESTS_SESSION_FIXTURE_H
#define PSK_TESTS_SESSION_FIXTURE_H

#include "model_fixture.h"

#include "infer/session.h"

#define SESSION_LIMIT 1e-4 /* the contract: in fp32, however the sequence is cut */

/* A model with a sequence and its logits by the parallel form. */
typedef struct session_fixture {
    psk_device *device;
    psk_model *model;
    int64_t N, V;
    int32_t *tokens;
    float *logits; /* N x V */
} session_fixture;

static inline session_fixture session_fixture_begin(size_t device, const psk_model_config *config, int64_t N) {
    session_fixture f = {.device = fixture_device(device), .N = N, .V = config->vocab_size};
    f.model = fixture_model(f.device, config);
    f.tokens = fixture_tokens(N, f.V, 1);
    f.logits = psk_test_buffer(N * f.V);
    PSK_TEST_OK(psk_model_logits(f.model, 1, N, f.tokens, f.logits));
    return f;
}

static inline void session_fixture_end(session_fixture *f) {
    psk_test_free(f->logits);
    free(f->tokens);
    psk_model_free(f->model);
    psk_device_free(f->device);
}

/* Appends `count` tokens of the sequence and compares the logits of the last one. */
static inline void session_fixture_append(const session_fixture *f, psk_session *session, int64_t count,
                                          double *worst) {
    float *logits = psk_test_buffer(f->V);
    const int64_t end = psk_session_length(session) + count;
    PSK_TEST_OK(psk_session_append(session, f->tokens + end - count, count, logits));
    assert_int_equal(psk_session_length(session), end);
    const double error = psk_test_relative_rms(logits, f->logits + (end - 1) * f->V, f->V);
    if (!(error <= *worst))
        *worst = error;
    psk_test_free(logits);
}

static inline psk_session *session_fixture_open(const session_fixture *f) {
    psk_session *session;
    PSK_TEST_OK(psk_session_create(f->model, &session));
    return session;
}

#endif
