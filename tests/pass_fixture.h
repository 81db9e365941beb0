/* A model of model_fixture.h with a batch, and what its passes give. */
#ifndef PSK_TESTS_PASS_FIXTURE_H
#define PSK_TESTS_PASS_FIXTURE_H

#include "model_fixture.h"

/* A model with a batch; losses and gradients of one pass. */
typedef struct fixture {
    psk_device *device;
    psk_model *model;
    int64_t B, N;
    int32_t *tokens, *targets; /* B x N */
    float *losses, *grads;
} fixture;

static inline fixture fixture_begin(size_t device, const psk_model_config *config, int64_t B, int64_t N) {
    fixture f = {.device = fixture_device(device), .B = B, .N = N};
    f.model = fixture_model(f.device, config);
    f.tokens = fixture_tokens(B * N, config->vocab_size, 1);
    f.targets = fixture_tokens(B * N, config->vocab_size, 2);
    f.targets[0] = -1; /* one that is not counted */
    f.losses = psk_test_buffer(B * N);
    f.grads = psk_test_buffer(f.model->params.floats);
    return f;
}

static inline void fixture_end(fixture *f) {
    psk_test_free(f->grads);
    psk_test_free(f->losses);
    free(f->targets);
    free(f->tokens);
    psk_model_free(f->model);
    psk_device_free(f->device);
}

static inline psk_batch batch_of(const fixture *f) {
    return (psk_batch){.tokens = f->tokens, .targets = f->targets, .dropout_seed = 5};
}

static inline psk_pass *pass_of(const fixture *f, psk_pass_options options) {
    psk_pass *pass;
    options.B = f->B;
    options.N = f->N;
    options.fill = PSK_FILL_NAN;
    PSK_TEST_OK(psk_pass_create(f->model, &options, &pass));
    return pass;
}

static inline void clear(float *x, int64_t n) {
    memset(x, 0, (size_t)n * sizeof(float));
}

/* f->losses and f->grads of the sum of losses. */
static inline void run_backward(fixture *f, const psk_batch *batch, psk_pass_options options) {
    options.training = true;
    psk_pass *pass = pass_of(f, options);
    clear(f->grads, f->model->params.floats);
    PSK_TEST_OK(psk_pass_loss_backward(pass, f->model, batch, 1, f->losses, f->grads));
    psk_pass_free(pass);
}

/* Relative rms on the tokens of the fixture. */
static inline double difference_of_logits(const fixture *f, psk_model *other) {
    const int64_t n = f->B * f->N * f->model->config.vocab_size;
    float *got = psk_test_buffer(n), *want = psk_test_buffer(n);
    PSK_TEST_OK(psk_model_logits(f->model, f->B, f->N, f->tokens, got));
    PSK_TEST_OK(psk_model_logits(other, f->B, f->N, f->tokens, want));
    const double difference = psk_test_relative_rms(got, want, n);
    psk_test_free(want);
    psk_test_free(got);
    return difference;
}

static inline void expect_same_logits(const fixture *f, psk_model *other, double limit) {
    PSK_TEST_AT_MOST(difference_of_logits(f, other), limit);
}

#endif
