/* The model: gradients, recomputation, batches, packed documents, files, memory. */
#include "model_fixture.h"

#include "base/files.h"
#include "io/safetensors.h"
#include "train/optimizer.h"

#include <malloc.h>
#include <math.h>

/* A model with a batch; losses and gradients of one pass. */
typedef struct fixture {
    psk_device *device;
    psk_model *model;
    int64_t B, N;
    int32_t *tokens, *targets; /* B x N */
    float *losses, *grads;
} fixture;

static fixture fixture_begin(size_t device, const psk_model_config *config, int64_t B, int64_t N) {
    fixture f = {.device = fixture_device(device), .B = B, .N = N};
    f.model = fixture_model(f.device, config);
    f.tokens = fixture_tokens(B * N, config->vocab_size, 1);
    f.targets = fixture_tokens(B * N, config->vocab_size, 2);
    f.targets[0] = -1; /* one that is not counted */
    f.losses = psk_test_buffer(B * N);
    f.grads = psk_test_buffer(f.model->params.floats);
    return f;
}

static void fixture_end(fixture *f) {
    psk_test_free(f->grads);
    psk_test_free(f->losses);
    free(f->targets);
    free(f->tokens);
    psk_model_free(f->model);
    psk_device_free(f->device);
}

static psk_batch batch_of(const fixture *f) {
    return (psk_batch){.tokens = f->tokens, .targets = f->targets, .dropout_seed = 5};
}

static psk_pass *pass_of(const fixture *f, psk_pass_options options) {
    psk_pass *pass;
    options.B = f->B;
    options.N = f->N;
    options.fill = PSK_FILL_NAN;
    PSK_TEST_OK(psk_pass_create(f->model, &options, &pass));
    return pass;
}

static void clear(float *x, int64_t n) {
    memset(x, 0, (size_t)n * sizeof(float));
}

/* f->losses and f->grads of the sum of losses. */
static void run_backward(fixture *f, const psk_batch *batch, psk_pass_options options) {
    options.training = true;
    psk_pass *pass = pass_of(f, options);
    clear(f->grads, f->model->params.floats);
    PSK_TEST_OK(psk_pass_loss_backward(pass, f->model, batch, 1, f->losses, f->grads));
    psk_pass_free(pass);
}

static double sum_of_magnitudes(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += fabs((double)x[i]);
    return total;
}

static double sum(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += (double)x[i];
    return total;
}

/* Gradients */

/* (sum of losses at w + step d, less that at w - step d) / (2 step); the weights are put back. */
static double central_difference(fixture *f, psk_pass *pass, const psk_param *param, const float *d, double step) {
    const psk_batch batch = batch_of(f);
    float *weights = f->model->weights + param->offset, *saved = psk_test_buffer(param->count);
    double sums[2];
    memcpy(saved, weights, (size_t)param->count * sizeof(float));
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < param->count; i++)
            weights[i] = saved[i] + (float)((side == 0 ? -step : step) * (double)d[i]);
        PSK_TEST_OK(psk_pass_loss(pass, f->model, &batch, f->losses));
        sums[side] = sum(f->losses, f->B * f->N);
    }
    memcpy(weights, saved, (size_t)param->count * sizeof(float));
    psk_test_free(saved);
    return (sums[1] - sums[0]) / (2 * step);
}

/* The slope along d must be <gradient, d>. d has the signs of the gradient and random sizes, so that every element
 * counts, with its sign. The steps change the sum of losses by 0.02 and 0.01, or less where a parameter has so little
 * effect that it would move by more than 0.1; two of them cancel the third derivative (Richardson). The limit is that
 * of the next derivative, and the rounding of a sum of losses near 100, measured at 1e-6, over the change; where the
 * loss bends sharply, smaller steps are tried. */
static void check_parameter(fixture *f, psk_pass *pass, const psk_param *param, const char *form) {
    float *d = psk_test_random(param->count, FIXTURE_SEED, param->name);
    double slope = 0, error = 1, limit = 0;
    for (int64_t i = 0; i < param->count; i++) {
        d[i] = copysignf(d[i], f->grads[param->offset + i]);
        slope += (double)d[i] * (double)f->grads[param->offset + i];
    }
    assert_true(slope > 0);
    double step = fmin(0.02 / slope, 0.1);
    for (int attempt = 0; attempt < 4 && !(error <= limit); attempt++, step /= 2) {
        const double far = central_difference(f, pass, param, d, step);
        const double near = central_difference(f, pass, param, d, step / 2);
        error = fabs((4 * near - far) / (3 * slope) - 1);
        limit = 2e-3 + 3e-6 / (step * slope);
    }
    if (!(error <= limit))
        fail_msg("%s: %s: central difference and gradient differ by %.2e", form, param->name, error);
    psk_test_free(d);
}

static void test_gradients_are_those_of_the_loss(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        if (config.attention.sketch != PSK_SKETCH_RANDOM_HADAMARD) { /* that one needs h to be a power of two */
            config.n_embd = 21;
            config.n_head = 3;
            config.n_kv_head = 1;
        }
        config.attention.block_size = 3; /* several blocks, so that the sketches matter */
        config.attention.far_scale = psk_default_far_scale(&config.attention);
        fixture f = fixture_begin(0, &config, 2, 17);
        const psk_param *wte = psk_params_find(&f.model->params, "wte.weight");
        for (int64_t i = 0; i < wte->count; i++) /* logits near 0: losses with little rounding, for the differences */
            f.model->weights[wte->offset + i] *= 0.2f;
        const psk_batch batch = batch_of(&f);
        run_backward(&f, &batch, (psk_pass_options){0});
        psk_pass *pass = pass_of(&f, (psk_pass_options){0});
        for (int64_t i = 0; i < f.model->params.count; i++)
            if (f.model->params.list[i].trained)
                check_parameter(&f, pass, &f.model->params.list[i], fixture_name(form));
        psk_pass_free(pass);
        fixture_end(&f);
    }
}

static void test_untrained_matrices_have_no_gradient(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        fixture f = fixture_begin(0, &config, 1, 9);
        const psk_batch batch = batch_of(&f);
        int64_t trained = 0;
        run_backward(&f, &batch, (psk_pass_options){0});
        for (int64_t i = 0; i < f.model->params.count; i++) {
            const psk_param *param = &f.model->params.list[i];
            trained += param->trained ? param->count : 0;
            for (int64_t j = 0; !param->trained && j < param->count; j++)
                assert_true(f.grads[param->offset + j] == 0);
        }
        assert_int_equal(psk_model_parameter_count(f.model), trained);
        fixture_end(&f);
    }
}

static void test_recomputation_changes_no_bit(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            const psk_model_config config = fixture_config(form);
            fixture f = fixture_begin(device, &config, 2, 19);
            const psk_batch batch = batch_of(&f);
            const size_t bytes = (size_t)f.model->params.floats * sizeof(float);
            float *kept = psk_test_buffer(f.model->params.floats);
            for (int dropped = 0; dropped < 2; dropped++) {
                const float dropout = dropped ? 0.25f : 0;
                run_backward(&f, &batch, (psk_pass_options){.dropout = dropout});
                memcpy(kept, f.grads, bytes);
                run_backward(&f, &batch, (psk_pass_options){.dropout = dropout, .recompute = true});
                assert_memory_equal(f.grads, kept, bytes);
            }
            psk_test_free(kept);
            fixture_end(&f);
        }
}

/* Dropout: other masks for another seed, none outside training, and a gradient that is that of the masked loss. */
static void test_dropout(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    fixture f = fixture_begin(0, &config, 1, 16);
    psk_batch batch = batch_of(&f);
    run_backward(&f, &batch, (psk_pass_options){.dropout = 0.3f});
    const double first = sum(f.losses, f.N);
    float *grads = psk_test_buffer(f.model->params.floats);
    memcpy(grads, f.grads, (size_t)f.model->params.floats * sizeof(float));

    const psk_param *param = psk_params_find(&f.model->params, "wte.weight");
    double slope = 0, sums[2];
    for (int64_t i = 0; i < param->count; i++)
        slope += (double)grads[param->offset + i] * (double)grads[param->offset + i];
    for (int side = 0; side < 2; side++) { /* along the gradient, there and back */
        const double step = (side == 0 ? -0.01 : 0.02) / slope;
        for (int64_t i = 0; i < param->count; i++)
            f.model->weights[param->offset + i] += (float)(step * (double)grads[param->offset + i]);
        run_backward(&f, &batch, (psk_pass_options){.dropout = 0.3f});
        sums[side] = sum(f.losses, f.N);
    }
    PSK_TEST_AT_MOST(fabs((sums[1] - sums[0]) / 0.02 - 1), 5e-3);

    batch.dropout_seed = 6;
    run_backward(&f, &batch, (psk_pass_options){.dropout = 0.3f});
    assert_true(fabs(sum(f.losses, f.N) - first) > 1e-3);
    psk_pass *pass = pass_of(&f, (psk_pass_options){.training = true, .dropout = 0.3f});
    PSK_TEST_OK(psk_pass_loss(pass, f.model, &batch, f.losses));
    psk_pass_free(pass);
    const double evaluated = sum(f.losses, f.N);
    run_backward(&f, &batch, (psk_pass_options){0});
    assert_true(sum(f.losses, f.N) == evaluated);
    psk_test_free(grads);
    fixture_end(&f);
}

/* Batches */

static void test_rows_of_a_batch_are_independent(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            const psk_model_config config = fixture_config(form);
            fixture f = fixture_begin(device, &config, 3, 23);
            const int64_t floats = f.model->params.floats;
            float *losses = psk_test_buffer(f.B * f.N), *grads = psk_test_buffer(floats);
            psk_batch batch = batch_of(&f);
            run_backward(&f, &batch, (psk_pass_options){0});
            memcpy(losses, f.losses, (size_t)(f.B * f.N) * sizeof(float));
            memcpy(grads, f.grads, (size_t)floats * sizeof(float));
            fixture one = f;
            one.B = 1;
            psk_pass *pass = pass_of(&one, (psk_pass_options){.training = true});
            clear(f.grads, floats); /* gradients accumulate over the rows */
            for (int64_t b = 0; b < f.B; b++) {
                batch.tokens = f.tokens + b * f.N;
                batch.targets = f.targets + b * f.N;
                PSK_TEST_OK(psk_pass_loss_backward(pass, f.model, &batch, 1, f.losses + b * f.N, f.grads));
            }
            PSK_TEST_AT_MOST(psk_test_relative_rms(f.losses, losses, f.B * f.N), 1e-6);
            PSK_TEST_AT_MOST(psk_test_relative_rms(f.grads, grads, floats), 1e-5);
            psk_pass_free(pass);
            psk_test_free(grads);
            psk_test_free(losses);
            fixture_end(&f);
        }
}

/* Rows `from` ... of a layer's qkv, count times h, copied into those of a model with other heads. */
static void copy_heads(const psk_model *from, int64_t from_head, psk_model *to, int64_t to_head, const char *name) {
    const psk_param *a = psk_params_find(&from->params, name), *b = psk_params_find(&to->params, name);
    const int64_t n = psk_config_head_size(&from->config) * from->config.n_embd;
    memcpy(to->weights + b->offset + to_head * n, from->weights + a->offset + from_head * n, (size_t)n * sizeof(float));
}

/* On the tokens of the fixture. */
static void expect_same_logits(const fixture *f, psk_model *other, double limit) {
    const int64_t n = f->B * f->N * f->model->config.vocab_size;
    float *got = psk_test_buffer(n), *want = psk_test_buffer(n);
    PSK_TEST_OK(psk_model_logits(f->model, f->B, f->N, f->tokens, got));
    PSK_TEST_OK(psk_model_logits(other, f->B, f->N, f->tokens, want));
    PSK_TEST_AT_MOST(psk_test_relative_rms(got, want, n), limit);
    psk_test_free(want);
    psk_test_free(got);
}

/* Keys and values of 2 heads for 4 queries are those of 4 heads, two by two the same. */
static void test_grouped_heads_equal_repeated_ones(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        psk_model_config repeated = config;
        repeated.n_kv_head = 0;
        fixture f = fixture_begin(0, &config, 1, 20);
        psk_model *wide = fixture_model(f.device, &repeated);
        for (int64_t layer = 0; layer < config.n_layer; layer++) {
            char name[64];
            snprintf(name, sizeof name, "blocks.%d.attn.qkv.weight", (int)layer);
            for (int64_t head = 0; head < 4; head++) {
                copy_heads(f.model, head, wide, head, name);
                copy_heads(f.model, 4 + head / 2, wide, 4 + head, name);
                copy_heads(f.model, 6 + head / 2, wide, 8 + head, name);
            }
        }
        expect_same_logits(&f, wide, 1e-6);
        psk_model_free(wide);
        fixture_end(&f);
    }
}

static void test_packed_documents_do_not_see_each_other(void **state) {
    (void)state;
    enum { FIRST = 11, SECOND = 12, N = 31 }; /* documents of 11, 1 and 19 tokens */
    const int64_t boundaries[] = {0, FIRST, SECOND, N};
    int32_t positions[N];
    for (int32_t t = 0; t < N; t++)
        positions[t] = t < FIRST ? t : t < SECOND ? t - FIRST : t - SECOND;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            const psk_model_config config = fixture_config(form);
            fixture f = fixture_begin(device, &config, 1, N);
            psk_batch batch = batch_of(&f);
            batch.cu_seqlens = boundaries;
            batch.documents = 3;
            batch.positions = positions;
            float packed[N], alone[N - SECOND];
            run_backward(&f, &batch, (psk_pass_options){0});
            memcpy(packed, f.losses, sizeof packed);
            f.tokens[3] = (f.tokens[3] + 1) % (int32_t)config.vocab_size;
            run_backward(&f, &batch, (psk_pass_options){0});
            assert_memory_equal(f.losses + FIRST, packed + FIRST, (N - FIRST) * sizeof(float));
            assert_memory_not_equal(f.losses, packed, FIRST * sizeof(float));

            fixture last = f; /* the third document on its own */
            last.N = N - SECOND;
            psk_pass *pass = pass_of(&last, (psk_pass_options){0});
            const psk_batch document = {.tokens = f.tokens + SECOND, .targets = f.targets + SECOND};
            PSK_TEST_OK(psk_pass_loss(pass, f.model, &document, alone));
            PSK_TEST_AT_MOST(psk_test_relative_rms(alone, packed + SECOND, N - SECOND), 1e-6);
            psk_pass_free(pass);
            fixture_end(&f);
        }
}

static void test_logits_and_losses_agree(void **state) {
    (void)state;
    psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    config.vocab_size = 50257; /* logits of 83 tokens at a time */
    fixture f = fixture_begin(1, &config, 2, 50);
    const int64_t V = config.vocab_size, T = f.B * f.N;
    const psk_batch batch = batch_of(&f);
    float *logits = psk_test_buffer(T * V), *want = psk_test_buffer(T);
    run_backward(&f, &batch, (psk_pass_options){0});
    PSK_TEST_OK(psk_model_logits(f.model, f.B, f.N, f.tokens, logits));
    for (int64_t t = 0; t < T; t++) {
        double total = 0;
        for (int64_t v = 0; v < V; v++)
            total += exp((double)logits[t * V + v]);
        want[t] = f.targets[t] < 0 ? 0 : (float)(log(total) - (double)logits[t * V + f.targets[t]]);
    }
    PSK_TEST_AT_MOST(psk_test_relative_rms(f.losses, want, T), 1e-5);
    psk_test_free(want);
    psk_test_free(logits);
    fixture_end(&f);
}

/* Lengths around what is all near (b, 2 b): the same logits as at the start of a long sequence. */
static void test_short_sequences_begin_as_long_ones_do(void **state) {
    (void)state;
    const int64_t whole = 40, lengths[] = {1, 6, 7, 8, 13, 14, 15, 39};
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            const psk_model_config config = fixture_config(form);
            fixture f = fixture_begin(device, &config, 1, whole);
            float *want = psk_test_buffer(whole * config.vocab_size);
            PSK_TEST_OK(psk_model_logits(f.model, 1, whole, f.tokens, want));
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                float *got = psk_test_buffer(lengths[i] * config.vocab_size);
                PSK_TEST_OK(psk_model_logits(f.model, 1, lengths[i], f.tokens, got));
                const double error = psk_test_relative_rms(got, want, lengths[i] * config.vocab_size);
                if (!(error <= 1e-5))
                    fail_msg("%s on %s: logits of %d tokens are %.2g away from those in %d", fixture_name(form),
                             fixture_devices[device], (int)lengths[i], error, (int)whole);
                psk_test_free(got);
            }
            psk_test_free(want);
            fixture_end(&f);
        }
}

/* Where all keys are near, sketches are not computed: nothing uninitialised is read, their weights have no gradient,
 * and those of the others are those of the loss (test_gradients_are_those_of_the_loss covers longer sequences). */
static void test_unread_sketches_have_no_gradient(void **state) {
    (void)state;
    const psk_pass_options options = {.B = 2, .N = 7, .training = true, .fill = PSK_FILL_NAN};
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        if (config.attention.mechanism != PSK_POLYSKETCH || config.attention.local == PSK_LOCAL_NONE)
            continue;
        fixture f = fixture_begin(1, &config, options.B, options.N);
        const psk_batch batch = batch_of(&f);
        run_backward(&f, &batch, options);
        psk_pass *pass = pass_of(&f, options);
        for (int64_t i = 0; i < f.model->params.count; i++) {
            const psk_param *param = &f.model->params.list[i];
            const bool unread = strstr(param->name, ".sketch.") != NULL || strstr(param->name, ".qk_norm.") != NULL ||
                                strstr(param->name, ".far_gain") != NULL;
            const double size = sum_of_magnitudes(f.grads + param->offset, param->count);
            if (unread ? size != 0 : !(size > 0 || !param->trained))
                fail_msg("%s: the gradient of %s has magnitude %g", fixture_name(form), param->name, size);
            if (!unread && param->trained)
                check_parameter(&f, pass, param, fixture_name(form));
        }
        psk_pass_free(pass);
        fixture_end(&f);
    }
}

/* A gain for each head on its far weights */

static float *gains_of(psk_model *model, int64_t layer) {
    return psk_params_layer(&model->params, &model->config, layer, model->weights).far_gain;
}

/* Every gain of every layer. */
static void set_gains(psk_model *model, float gain) {
    for (int64_t layer = 0; layer < model->config.n_layer; layer++)
        for (int64_t e = 0; e < model->config.n_head; e++)
            gains_of(model, layer)[e] = gain;
}

static void test_gains_start_at_zero_and_do_not_decay(void **state) {
    (void)state;
    psk_device *device = fixture_device(1);
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        psk_model *model;
        PSK_TEST_OK(psk_model_create(device, &config, FIXTURE_SEED, &model));
        const psk_param *param = psk_params_find(&model->params, "blocks.1.attn.far_gain");
        assert_int_equal(param != NULL, config.far_gain);
        for (int64_t e = 0; param != NULL && e < config.n_head; e++)
            assert_true(gains_of(model, 1)[e] == 0);
        assert_true(param == NULL || (param->trained && !param->decayed && param->dims == 1 && param->shape[0] == 4));
        psk_model_free(model);
    }
    psk_device_free(device);
}

/* Losses, and gradients of all weights that a model without gains has. */
static void test_gains_of_zero_change_no_bit(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            psk_model_config config = fixture_config(form);
            if (!config.far_gain)
                continue;
            fixture f = fixture_begin(device, &config, 2, 19);
            config.far_gain = 0;
            fixture plain = fixture_begin(device, &config, 2, 19);
            const psk_batch batch = batch_of(&f);
            set_gains(f.model, 0);
            run_backward(&f, &batch, (psk_pass_options){0});
            run_backward(&plain, &batch, (psk_pass_options){0});
            assert_memory_equal(f.losses, plain.losses, (size_t)(f.B * f.N) * sizeof(float));
            for (int64_t i = 0; i < plain.model->params.count; i++) {
                const psk_param *want = &plain.model->params.list[i];
                const psk_param *got = psk_params_find(&f.model->params, want->name);
                assert_memory_equal(f.grads + got->offset, plain.grads + want->offset,
                                    (size_t)want->count * sizeof(float));
            }
            fixture_end(&plain);
            fixture_end(&f);
        }
}

/* Gains of log 3 in all heads are a far_scale three times as large. */
static void test_gains_multiply_far_weights(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            psk_model_config config = fixture_config(form);
            if (!config.far_gain)
                continue;
            fixture f = fixture_begin(device, &config, 2, 40);
            set_gains(f.model, logf(3));
            config.far_gain = 0;
            config.attention.far_scale *= 3;
            psk_model *scaled = fixture_model(f.device, &config);
            expect_same_logits(&f, scaled, 1e-5);
            psk_model_free(scaled);
            fixture_end(&f);
        }
}

/* Without a local part a head of nearly no gain sees nothing: its columns of `out` do not matter. */
static void test_a_gain_is_that_of_its_head(void **state) {
    (void)state;
    enum { H = 4, D = 32 };
    psk_model_config config = fixture_config(7); /* no local part */
    config.far_gain = 1;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (int64_t head = 0; head < H; head++) {
            fixture f = fixture_begin(device, &config, 2, 20);
            psk_model *silent = fixture_model(f.device, &config);
            for (int64_t layer = 0; layer < config.n_layer; layer++) {
                gains_of(f.model, layer)[head] = -80;
                float *out = psk_params_layer(&silent->params, &config, layer, silent->weights).out;
                for (int64_t i = 0; i < D; i++)
                    clear(out + i * D + head * (D / H), D / H);
            }
            expect_same_logits(&f, silent, 1e-6);
            psk_model_free(silent);
            fixture_end(&f);
        }
}

/* Relative rms of what the gradients of all gains differ by. */
static double error_of_gains(const fixture *got, const fixture *want) {
    const psk_model_config *config = &got->model->config;
    double difference = 0, size = 0;
    for (int64_t layer = 0; layer < config->n_layer; layer++) {
        const float *x = psk_params_layer(&got->model->params, config, layer, got->grads).far_gain;
        const float *y = psk_params_layer(&want->model->params, config, layer, want->grads).far_gain;
        for (int64_t e = 0; e < config->n_head; e++) {
            difference += ((double)x[e] - (double)y[e]) * ((double)x[e] - (double)y[e]);
            size += (double)y[e] * (double)y[e];
        }
    }
    return sqrt(difference / size);
}

typedef struct device_errors {
    double single, rounded, single_gains, rounded_gains; /* float32, bfloat16; of the gains alone */
} device_errors;

/* Errors of the CPU device's gradients against those of the reference; bfloat16: 0 where the processor has none. */
static device_errors errors_of_device(const psk_model_config *config) {
    fixture f = fixture_begin(1, config, 2, 96), exact = fixture_begin(0, config, 2, 96);
    const psk_batch batch = batch_of(&f);
    const int64_t floats = f.model->params.floats;
    device_errors errors = {0};
    run_backward(&exact, &batch, (psk_pass_options){0});
    run_backward(&f, &batch, (psk_pass_options){0});
    PSK_TEST_AT_MOST(psk_test_relative_rms(f.losses, exact.losses, f.B * f.N), 1e-5);
    errors.single = psk_test_relative_rms(f.grads, exact.grads, floats);
    errors.single_gains = config->far_gain ? error_of_gains(&f, &exact) : 0;
    if (psk_device_set_precision(f.device, PSK_PRECISION_BF16) == PSK_OK) {
        run_backward(&f, &batch, (psk_pass_options){0});
        errors.rounded = psk_test_relative_rms(f.grads, exact.grads, floats);
        errors.rounded_gains = config->far_gain ? error_of_gains(&f, &exact) : 0;
    }
    fixture_end(&exact);
    fixture_end(&f);
    return errors;
}

/* In float32 the CPU device gives what the reference gives; in bfloat16 it is as near as with the model without gains.
 * The model is wide enough for bfloat16 to round its products. */
static void test_gains_on_both_devices_and_precisions(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.n_embd = 128;
        config.attention.block_size = 16;
        config.attention.sketch_size = 16;
        if (!config.far_gain)
            continue;
        const device_errors errors = errors_of_device(&config);
        config.far_gain = 0;
        const device_errors plain = errors_of_device(&config);
        printf("  %-41s gradients %.1e, of gains %.1e; bfloat16 %.1e, of gains %.1e, without gains %.1e\n",
               fixture_name(form), errors.single, errors.single_gains, errors.rounded, errors.rounded_gains,
               plain.rounded);
        PSK_TEST_AT_MOST(errors.single, 1e-5);
        PSK_TEST_AT_MOST(errors.rounded, 2 * plain.rounded);
        if (config.attention.local == PSK_LOCAL_NONE)
            continue; /* weights so much larger than denominator_bias that a gain hardly matters: 0 but for rounding */
        PSK_TEST_AT_MOST(errors.single_gains, 1e-5);
        PSK_TEST_AT_MOST(errors.rounded_gains, 4 * plain.rounded); /* sums of terms of either sign */
    }
}

static void test_wrong_batches_are_refused(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(0);
    fixture f = fixture_begin(0, &config, 2, 5);
    const psk_batch batch = batch_of(&f);
    psk_pass *pass = pass_of(&f, (psk_pass_options){0}), *none;
    f.tokens[7] = 29;
    PSK_TEST_FAILS(psk_pass_loss(pass, f.model, &batch, f.losses), PSK_ERROR_ARGUMENT, "token 7 is 29", "0 ... 28");
    f.tokens[7] = -1;
    PSK_TEST_FAILS(psk_pass_loss(pass, f.model, &batch, f.losses), PSK_ERROR_ARGUMENT, "token 7 is -1");
    f.tokens[7] = 0;
    f.targets[2] = 29;
    PSK_TEST_FAILS(psk_pass_loss(pass, f.model, &batch, f.losses), PSK_ERROR_ARGUMENT, "target 2 is 29", "28");
    PSK_TEST_FAILS(psk_pass_create(f.model, &(psk_pass_options){.B = 0, .N = 4}, &none), PSK_ERROR_ARGUMENT, "0 x 4");
    PSK_TEST_FAILS(psk_pass_create(f.model, &(psk_pass_options){.B = INT64_MAX / 2, .N = 4}, &none), PSK_ERROR_ARGUMENT,
                   "4611686018427387903");
    psk_pass_free(pass);
    psk_pass_free(NULL);
    fixture_end(&f);
}

/* Files */

static char *in(const char *folder, const char *name) {
    char *path;
    PSK_TEST_OK(psk_join_path(folder, name, &path));
    return path;
}

static void test_saving_and_loading_changes_no_bit(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *deeper = in(folder, "models/new");
    psk_device *device = fixture_device(0);
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.attention.far_scale = 1.0f / 3.0f;
        psk_model *saved = fixture_model(device, &config), *loaded;
        PSK_TEST_OK(psk_model_save(saved, deeper));
        PSK_TEST_OK(psk_model_load(device, deeper, &loaded));
        json_t *want, *got;
        PSK_TEST_OK(psk_config_to_json(psk_model_get_config(saved), &want));
        PSK_TEST_OK(psk_config_to_json(psk_model_get_config(loaded), &got));
        assert_true(json_equal(got, want));
        json_decref(got);
        json_decref(want);
        assert_int_equal(loaded->params.floats, saved->params.floats);
        assert_memory_equal(loaded->weights, saved->weights, (size_t)saved->params.floats * sizeof(float));
        psk_model_free(loaded);
        psk_model_free(saved);
    }
    psk_device_free(device);
    psk_free(deeper);
    psk_test_remove_folder(folder);
}

/* Writes the model's tensors with one left out, one of another shape, or one more. */
typedef enum { LEFT_OUT, RESHAPED, ADDED } defect;

static void write_defective(const psk_model *model, const char *folder, defect how, const char *name) {
    psk_tensor_source sources[128];
    int64_t count = 0;
    psk_model_tensor tensor;
    for (int64_t i = 0; psk_model_tensor_at(model, i, &tensor); i++) {
        psk_tensor_source source = {tensor.name, PSK_F32, tensor.dims, {tensor.shape[0], tensor.shape[1]}, tensor.data};
        const bool meant = strcmp(tensor.name, name) == 0;
        if (meant && how == RESHAPED) {
            source.shape[0] = tensor.shape[1];
            source.shape[1] = tensor.shape[0];
        }
        if (!(meant && how == LEFT_OUT))
            sources[count++] = source;
    }
    if (how == ADDED)
        sources[count++] = (psk_tensor_source){name, PSK_F32, 1, {1}, model->weights};
    char *path = in(folder, "model.safetensors");
    PSK_TEST_OK(psk_safetensors_write(path, sources, count, NULL));
    psk_free(path);
}

static void test_wrong_weights_are_named(void **state) {
    (void)state;
    char *folder = psk_test_folder();
    psk_device *device = fixture_device(0);
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    psk_model *model = fixture_model(device, &config), *loaded;
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FILE, "config.json");
    PSK_TEST_OK(psk_model_save(model, folder));
    write_defective(model, folder, LEFT_OUT, "blocks.1.attn.out.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.1.attn.out.weight",
                   "not there");
    write_defective(model, folder, RESHAPED, "blocks.0.mlp.up.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.0.mlp.up.weight", "160",
                   "32");
    write_defective(model, folder, ADDED, "blocks.2.ln_1.weight");
    PSK_TEST_FAILS(psk_model_load(device, folder, &loaded), PSK_ERROR_FORMAT, folder, "blocks.2.ln_1.weight",
                   "unexpected");
    assert_null(loaded);
    psk_model_free(model);
    psk_model_free(NULL);
    psk_device_free(device);
    psk_test_remove_folder(folder);
}

/* A softmax model sees all keys, whatever `local` its file says or lacks, until the file says local_only. */
static void expect_local_only_to_be_said(const char *path) {
    static const char *const said[] = {"", ", \"local\": \"block\"", ", \"local\": \"window\", \"block_size\": 7",
                                       ", \"local_only\": false, \"local\": \"window\""};
    char text[512];
    psk_model_config config, again;
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        snprintf(text, sizeof text,
                 "{\"attention\": \"softmax\", \"vocab_size\": 9, \"n_positions\": 4, \"n_embd\": 8, "
                 "\"n_layer\": 1, \"n_head\": 2%s}",
                 said[i]);
        PSK_TEST_OK(psk_write_file(path, text, strlen(text)));
        PSK_TEST_OK(psk_model_config_read(path, &config));
        assert_int_equal(config.attention.local_only, 0);
        assert_int_equal(psk_attention_tail(&config.attention, 100), 100);
        PSK_TEST_OK(psk_model_config_write(path, &config));
        PSK_TEST_OK(psk_model_config_read(path, &again));
        assert_int_equal(again.attention.local_only, 0);
    }
    config.attention.local_only = 1;
    config.attention.local = PSK_LOCAL_BLOCK;
    PSK_TEST_OK(psk_model_config_write(path, &config));
    PSK_TEST_OK(psk_model_config_read(path, &again));
    assert_int_equal(again.attention.local_only, 1);
    assert_int_equal(again.attention.local, PSK_LOCAL_BLOCK);
    assert_int_equal(again.attention.block_size, config.attention.block_size);
    assert_int_equal(psk_attention_tail(&again.attention, 100), 100 % config.attention.block_size);
}

static void test_configs_are_checked(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *path = in(folder, "config.json");
    psk_model_config config;
#define GOOD                                                                                                           \
    "\"attention\": \"softmax\", \"vocab_size\": 9, \"n_positions\": 4, \"n_embd\": 8, \"n_layer\": 1, \"n_head\": "
    const struct {
        const char *text, *parts[3];
    } wrong[] = {
        {"{" GOOD "2, \"n_heads\": 3}", {"n_heads", "not known"}},
        {"{" GOOD "3}", {"n_head is 3", "n_embd (8)"}},
        {"{" GOOD "4, \"n_kv_head\": 3}", {"n_kv_head is 3", "n_head (4)"}},
        {"{" GOOD "0}", {"n_head is 0", "1 ... 4096"}},
        {"{" GOOD "\"2\"}", {"n_head"}},
        {"{\"attention\": \"softmax\"}", {"vocab_size", "missing"}},
        {"{\"vocab_size\": 7}", {"attention", "missing"}},
        {"{\"attention\": \"linear\"}", {"linear", "softmax polynomial polysketch performer"}},
        {"{\"attention\": \"polysketch\", \"sketch\": \"random\"}", {"local", "missing"}},
        {"{" GOOD "2, \"far_gain\": true}", {"far_gain is true", "attention is softmax"}},
        {"{" GOOD "2, \"far_gain\": 1}", {"far_gain", "true or false"}},
        {"{" GOOD "2, \"local_only\": true}", {"local\"", "missing"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"window\"}", {"block_size", "missing"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"window\", \"block_size\": 0}", {"block_size is 0"}},
        {"{" GOOD "2, \"local_only\": true, \"local\": \"none\", \"block_size\": 4}", {"local_only", "local is none"}},
        {"{" GOOD "2, \"local_only\": 1}", {"local_only"}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        PSK_TEST_OK(psk_write_file(path, wrong[i].text, strlen(wrong[i].text)));
        const char *second = wrong[i].parts[1] != NULL ? wrong[i].parts[1] : "";
        PSK_TEST_FAILS(psk_model_config_read(path, &config), PSK_ERROR_FORMAT, path, wrong[i].parts[0], second);
    }
    const char *good = "{" GOOD "2, \"model_type\": \"x\", \"n_kv_head\": 1}";
    PSK_TEST_OK(psk_write_file(path, good, strlen(good)));
    PSK_TEST_OK(psk_model_config_read(path, &config));
    assert_int_equal(psk_config_kv_heads(&config), 1);
    assert_false(config.far_gain);
    expect_local_only_to_be_said(path);
    config = fixture_config(7);
    config.attention.degree = 6; /* p/2 = 3 is no power of two */
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "degree", "6");
    config.attention.degree = 4;
    config.attention.direction = PSK_BIDIRECTIONAL;
    PSK_TEST_FAILS(psk_model_config_check(&config), PSK_ERROR_ARGUMENT, "causal");
    psk_free(path);
    psk_test_remove_folder(folder);
}

static void test_presets(void **state) {
    (void)state;
    psk_model_config config;
    int64_t count = 0;
    for (; psk_model_preset_name(count) != NULL; count++) {
        psk_params params;
        PSK_TEST_OK(psk_model_config_preset(psk_model_preset_name(count), &config));
        PSK_TEST_OK(psk_params_create(&config, &params));
        printf("  %-12s %7.2f M floats: %s\n", psk_model_preset_name(count), (double)params.floats / 1e6,
               psk_model_preset_description(count));
        psk_params_free(&params);
    }
    assert_true(count >= 6);
    assert_null(psk_model_preset_description(count));
    PSK_TEST_OK(psk_model_config_preset("gpt2-medium", &config));
    assert_int_equal(config.n_layer, 24);
    assert_int_equal(config.n_head, 16);
    assert_int_equal(config.n_embd, 1024);
    PSK_TEST_FAILS(psk_model_config_preset("gpt3", &config), PSK_ERROR_ARGUMENT, "gpt3", "gpt2-large");
    config.attention.sketch = PSK_SKETCH_RANDOM;
    assert_true(psk_default_far_scale(&config.attention) == 1.0f / (32 * 32));
    config.attention.local = PSK_LOCAL_NONE;
    assert_true(psk_default_far_scale(&config.attention) == 1.0f);
    config.attention.sketch = PSK_SKETCH_LEARNED;
    config.attention.local = PSK_LOCAL_BLOCK;
    assert_true(psk_default_far_scale(&config.attention) == 1.0f);
}

/* Start */

static double second_moment(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total / (double)n;
}

/* Learned sketches start with <s,s> near r; the projections of performer are orthogonal within runs of h rows. */
static void test_new_weights(void **state) {
    (void)state;
    psk_device *device = fixture_device(1);
    enum { ROWS = 2000, H = 64, R = 32 };
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.n_embd = 4 * H;
        config.attention.sketch_size = fixture_forms[form].mechanism == PSK_PERFORMER ? 100 : R;
        psk_model *model, *again;
        PSK_TEST_OK(psk_model_create(device, &config, 1, &model));
        PSK_TEST_OK(psk_model_create(device, &config, 1, &again));
        assert_memory_equal(model->weights, again->weights, (size_t)model->params.floats * sizeof(float));
        const psk_layer_pointers layer = psk_params_layer(&model->params, &config, 1, model->weights);
        PSK_TEST_AT_MOST(fabs(sqrt(second_moment(layer.qkv, 8 * H * 4 * H)) / 0.02 - 1), 0.02);
        PSK_TEST_AT_MOST(fabs(sqrt(second_moment(layer.out, 16 * H * H)) / 0.01 - 1), 0.02); /* sqrt(2 L) = 2 */
        if (psk_sizes_of(&config).sketch) {
            float *x = psk_test_random(ROWS * H, 3, "x"), *s = psk_test_buffer(ROWS * R);
            float *workspace = psk_test_buffer(psk_sketch_workspace(&config.attention, H));
            PSK_TEST_OK(psk_sketch_forward(device, &config.attention, H, ROWS, x, &layer.sketch, s, workspace));
            const double scale = second_moment(s, ROWS * R); /* <s,s> / r */
            printf("  %-36s <s,s> / r = %.2f\n", fixture_name(form), scale);
            const bool learned = config.attention.sketch >= PSK_SKETCH_LEARNED;
            assert_true(!learned || (scale > 0.5 && scale < 2));
            psk_test_free(workspace);
            psk_test_free(s);
            psk_test_free(x);
        }
        for (int64_t i = 0; layer.projection != NULL && i < 100; i++)
            for (int64_t j = i / H * H; j < i; j++) {
                double product = 0;
                for (int64_t c = 0; c < H; c++)
                    product += (double)layer.projection[i * H + c] * (double)layer.projection[j * H + c];
                PSK_TEST_AT_MOST(fabs(product), 1e-4);
            }
        psk_model_free(again);
        psk_model_free(model);
    }
    psk_device_free(device);
}

/* Memory */

typedef struct step_argument {
    psk_device *device;
    psk_model_config config;
    const psk_batch *batch;
    bool recompute;
} step_argument;

/* Everything of a training step of 2 x 10 tokens, taken and given back. */
static psk_status create_and_train(void *argument) {
    const step_argument *a = argument;
    const psk_optimizer_settings settings = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .grad_clip = 1};
    const psk_pass_options options = {.B = 2, .N = 10, .training = true, .recompute = a->recompute};
    psk_model *model;
    psk_pass *pass = NULL;
    float *blocks[3] = {NULL}, losses[20];
    psk_status status;
    PSK_TRY(psk_model_create(a->device, &a->config, 1, &model));
    for (int i = 0; i < 3; i++)
        PSK_TRY_GOTO(status, psk_alloc_zero((size_t)model->params.floats * sizeof(float), "", (void **)&blocks[i]),
                     done);
    PSK_TRY_GOTO(status, psk_pass_create(model, &options, &pass), done);
    PSK_TRY_GOTO(status, psk_pass_loss_backward(pass, model, a->batch, 1, losses, blocks[0]), done);
    status = psk_optimizer_step(model, blocks[0], blocks[1], blocks[2], &settings, 1, NULL);
done:
    psk_pass_free(pass);
    for (int i = 0; i < 3; i++)
        psk_free(blocks[i]);
    psk_model_free(model);
    return status;
}

static void test_out_of_memory_is_an_error(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        fixture f = fixture_begin(0, &config, 2, 10);
        const psk_batch batch = batch_of(&f);
        step_argument argument = {f.device, config, &batch, form % 2 == 0};
        assert_true(psk_test_allocation_failures(create_and_train, &argument) > 5);
        fixture_end(&f);
    }
}

typedef struct files_argument {
    const fixture *f;
    const char *folder;
} files_argument;

static psk_status save_and_load(void *argument) {
    const files_argument *a = argument;
    psk_model *loaded;
    PSK_TRY(psk_model_save(a->f->model, a->folder));
    PSK_TRY(psk_model_load(a->f->device, a->folder, &loaded));
    psk_model_free(loaded);
    return PSK_OK;
}

static void test_files_out_of_memory(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    fixture f = fixture_begin(0, &config, 1, 1);
    char *folder = psk_test_folder();
    files_argument argument = {&f, folder};
    assert_true(psk_test_allocation_failures(save_and_load, &argument) > 5);
    psk_test_remove_folder(folder);
    fixture_end(&f);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_MALLINFO 0 /* the sanitizers replace malloc */
#else
#define HAS_MALLINFO 1
#endif

/* Bytes that malloc has given out. */
static double taken(void) {
    const struct mallinfo2 info = mallinfo2();
    return (double)info.uordblks + (double)info.hblkhd;
}

/* What is really taken for a pass, with the blocks that a trainer takes beside it. */
static double measure_memory(psk_device *device, const psk_model_config *config, const psk_pass_options *options) {
    const double before = taken();
    psk_model *model;
    psk_pass *pass;
    float *blocks[3] = {NULL};
    int32_t *tokens = fixture_tokens(2 * options->B * options->N, config->vocab_size, 1);
    float *losses = psk_test_buffer(options->B * options->N);
    PSK_TEST_OK(psk_model_create(device, config, 1, &model));
    PSK_TEST_OK(psk_pass_create(model, options, &pass));
    for (int i = 0; options->training && i < 3; i++)
        blocks[i] = psk_test_buffer(model->params.floats);
    const double bytes = taken() - before;
    for (int i = 0; i < 3; i++)
        psk_test_free(blocks[i]);
    psk_pass_free(pass);
    psk_model_free(model);
    psk_test_free(losses);
    free(tokens);
    return bytes;
}

static void test_planned_memory_is_what_is_taken(void **state) {
    (void)state;
    psk_device *device = fixture_device(0);
    for (size_t form = 0; HAS_MALLINFO && form < FIXTURE_FORMS; form++)
        for (int variant = 0; variant < 3; variant++) {
            psk_model_config config = fixture_config(form);
            config.n_embd = 64;
            config.vocab_size = 300;
            const psk_pass_options options = {
                .B = 3, .N = 200, .training = variant < 2, .recompute = variant == 1, .fill = PSK_FILL_NAN};
            psk_memory_report report;
            int64_t lines = 0;
            PSK_TEST_OK(psk_model_memory(&config, options.B, options.N, options.training, options.recompute, &report));
            for (int64_t i = 0; i < report.count; i++)
                lines += report.lines[i].bytes;
            assert_int_equal(lines, report.total);
            const double measured = measure_memory(device, &config, &options);
            PSK_TEST_AT_MOST(fabs((double)report.total / measured - 1), 0.02);
        }
    psk_device_free(device);
}

static void test_recomputation_keeps_inputs_only(void **state) {
    (void)state;
    psk_model_config config;
    psk_memory_report kept[2], recomputed[2];
    PSK_TEST_OK(psk_model_config_preset("gpt2-small", &config));
    for (int i = 0; i < 2; i++) {
        config.n_layer = 12 + i;
        PSK_TEST_OK(psk_model_memory(&config, 2, 1024, 1, 0, &kept[i]));
        PSK_TEST_OK(psk_model_memory(&config, 2, 1024, 1, 1, &recomputed[i]));
    }
    for (int64_t i = 0; i < recomputed[0].count; i++) {
        const psk_memory_line *line = &recomputed[0].lines[i];
        printf("  gpt2-small, 2 x 1024, recompute: %-12s %8.1f MiB\n", line->category, (double)line->bytes / 0x1p20);
        if (strcmp(line->category, "activations") == 0)
            assert_int_equal(recomputed[1].lines[i].bytes - line->bytes, 2 * 1024 * 768 * 4); /* a layer's x */
    }
    assert_true(recomputed[0].total < kept[0].total);
}

/* The optimiser */

static void test_a_gradient_that_is_not_finite_is_named(void **state) {
    (void)state;
    const psk_optimizer_settings settings = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    const psk_model_config config = fixture_config(0);
    fixture f = fixture_begin(1, &config, 1, 4);
    const int64_t floats = f.model->params.floats;
    float *m = psk_test_buffer(floats), *v = psk_test_buffer(floats), *before = psk_test_buffer(floats);
    clear(m, floats);
    clear(v, floats);
    clear(f.grads, floats);
    memcpy(before, f.model->weights, (size_t)floats * sizeof(float));
    f.grads[psk_params_find(&f.model->params, "blocks.1.mlp.down.weight")->offset + 5] = NAN;
    PSK_TEST_FAILS(psk_optimizer_step(f.model, f.grads, m, v, &settings, 1, NULL), PSK_ERROR_NUMERIC,
                   "blocks.1.mlp.down.weight");
    assert_memory_equal(before, f.model->weights, (size_t)floats * sizeof(float));
    psk_test_free(before);
    psk_test_free(v);
    psk_test_free(m);
    fixture_end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_are_those_of_the_loss),
        cmocka_unit_test(test_untrained_matrices_have_no_gradient),
        cmocka_unit_test(test_recomputation_changes_no_bit),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_rows_of_a_batch_are_independent),
        cmocka_unit_test(test_grouped_heads_equal_repeated_ones),
        cmocka_unit_test(test_packed_documents_do_not_see_each_other),
        cmocka_unit_test(test_logits_and_losses_agree),
        cmocka_unit_test(test_short_sequences_begin_as_long_ones_do),
        cmocka_unit_test(test_unread_sketches_have_no_gradient),
        cmocka_unit_test(test_gains_start_at_zero_and_do_not_decay),
        cmocka_unit_test(test_gains_of_zero_change_no_bit),
        cmocka_unit_test(test_gains_multiply_far_weights),
        cmocka_unit_test(test_a_gain_is_that_of_its_head),
        cmocka_unit_test(test_gains_on_both_devices_and_precisions),
        cmocka_unit_test(test_wrong_batches_are_refused),
        cmocka_unit_test(test_saving_and_loading_changes_no_bit),
        cmocka_unit_test(test_wrong_weights_are_named),
        cmocka_unit_test(test_configs_are_checked),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_new_weights),
        cmocka_unit_test(test_out_of_memory_is_an_error),
        cmocka_unit_test(test_files_out_of_memory),
        cmocka_unit_test(test_planned_memory_is_what_is_taken),
        cmocka_unit_test(test_recomputation_keeps_inputs_only),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
