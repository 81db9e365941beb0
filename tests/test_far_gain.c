/* A gain for each head on its far weights. */
#include "pass_fixture.h"

#include <math.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gains_start_at_zero_and_do_not_decay), cmocka_unit_test(test_gains_of_zero_change_no_bit),
        cmocka_unit_test(test_gains_multiply_far_weights),           cmocka_unit_test(test_a_gain_is_that_of_its_head),
        cmocka_unit_test(test_gains_on_both_devices_and_precisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
