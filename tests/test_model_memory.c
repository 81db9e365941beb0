/* The memory of training: what is said, what is taken, and none left. */
#include "pass_fixture.h"

#include "train/optimizer.h"

#include <malloc.h>
#include <math.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_out_of_memory_is_an_error),
        cmocka_unit_test(test_planned_memory_is_what_is_taken),
        cmocka_unit_test(test_recomputation_keeps_inputs_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
