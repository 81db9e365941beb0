/* The model: gradients, recomputation, batches, packed documents, a new model's weights. */
#include "pass_fixture.h"

#include "train/optimizer.h"

#include <math.h>

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
        config.attention.far_scale = psk_default_far_scale(&config);
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

/* Softmax of LayerNormed q and k does not see how long they are; without the LayerNorm it does. */
static void test_qk_norm_takes_lengths_away(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (int norm = 0; norm < 2; norm++) {
            psk_model_config config = fixture_config(0);
            config.qk_norm = norm;
            fixture f = fixture_begin(device, &config, 2, 19);
            psk_model *longer = fixture_model(f.device, &config);
            const int64_t queries_and_keys = (config.n_head + config.n_kv_head) * psk_config_head_size(&config);
            for (int64_t layer = 0; layer < config.n_layer; layer++) {
                float *qkv = psk_params_layer(&longer->params, &config, layer, longer->weights).qkv;
                for (int64_t i = 0; i < queries_and_keys * config.n_embd; i++)
                    qkv[i] *= 3;
            }
            const double difference = difference_of_logits(&f, longer);
            assert_true(norm ? difference < 1e-4 : difference > 1e-2);
            psk_model_free(longer);
            fixture_end(&f);
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

/* Start */

static double second_moment(const float *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total / (double)n;
}

/* Sketches start with <s,s> near h^2, as <x,x>^2 is, the network with r; the projections of performer are orthogonal
 * within runs of h rows. */
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
            const double want = config.attention.sketch == PSK_SKETCH_LEARNED ? 1 : (double)(H * H) / (double)R;
            assert_true(scale > 0.5 * want && scale < 2 * want);
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

/* The optimiser */

/* Sinusoids would drown GPT-2's embeddings; where there are none, these are what a model starts with. A token at two
 * positions differs in the sinusoids alone. */
static void test_positions_are_added_as_the_config_says(void **state) {
    (void)state;
    for (int sinusoids = 0; sinusoids < 2; sinusoids++) {
        psk_model_config config = fixture_config(0);
        config.position_scale = (float)sinusoids;
        config.vocab_size = 1000;
        for (size_t device = 0; device < FIXTURE_DEVICES; device++) {
            psk_device *d = fixture_device(device);
            psk_model *model;
            float logits[2000];
            PSK_TEST_OK(psk_model_create(d, &config, FIXTURE_SEED, &model));
            const float *wte = psk_params_model(&model->params, model->weights).wte;
            const double std = sqrt(second_moment(wte, config.vocab_size * config.n_embd));
            PSK_TEST_AT_MOST(fabs(std / (sinusoids ? 0.1 : 0.02) - 1), 0.02);
            PSK_TEST_OK(psk_model_logits(model, 1, 2, (const int32_t[]){3, 3}, logits));
            const double moved = psk_test_relative_rms(logits + 1000, logits, 1000);
            assert_true(sinusoids ? moved > 1e-2 : moved < 1e-5);
            psk_model_free(model);
            psk_device_free(d);
        }
    }
}

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
        cmocka_unit_test(test_qk_norm_takes_lengths_away),
        cmocka_unit_test(test_wrong_batches_are_refused),
        cmocka_unit_test(test_new_weights),
        cmocka_unit_test(test_positions_are_added_as_the_config_says),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
