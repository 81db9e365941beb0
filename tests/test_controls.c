/* What the quality study's controls rely on: with far_scale 0 a token sees its block, or its window, and nothing else.
 */
#include "support.h"

#include "polysketch.h"

#include <math.h>
#include <string.h>

#define B_SIZE 4
#define N      19
#define V      11

static psk_model *make_model(psk_device *device, psk_local local, float far_scale) {
    psk_model *model;
    psk_model_config config = {.vocab_size = V,
                               .n_positions = N,
                               .n_embd = 16,
                               .n_layer = 1,
                               .n_head = 2,
                               .attention = psk_attention_config_default()};
    config.attention.local = local;
    config.attention.block_size = B_SIZE;
    config.attention.sketch_size = 1;
    config.attention.far_scale = far_scale;
    PSK_TEST_OK(psk_model_create(device, &config, 5, &model));
    return model;
}

/* The last position whose logits change with the first token. */
static int64_t reach(psk_model *model) {
    int32_t tokens[N];
    float before[N * V], after[N * V];
    int64_t last = -1;
    for (int64_t n = 0; n < N; n++)
        tokens[n] = (int32_t)(7 * n % V);
    PSK_TEST_OK(psk_model_logits(model, 1, N, tokens, before));
    tokens[0] = V - 1;
    PSK_TEST_OK(psk_model_logits(model, 1, N, tokens, after));
    for (int64_t n = 0; n < N; n++)
        if (memcmp(before + n * V, after + n * V, V * sizeof(float)) != 0)
            last = n;
    return last;
}

static void test_reach(void **state) {
    (void)state;
    static const char *const devices[] = {"reference", "cpu"};
    for (size_t d = 0; d < 2; d++) {
        psk_device *device;
        PSK_TEST_OK(psk_device_create(devices[d], 1, &device));
        for (int local = PSK_LOCAL_BLOCK; local <= PSK_LOCAL_WINDOW; local++) {
            psk_model *const alone = make_model(device, (psk_local)local, 0);
            psk_model *const far = make_model(device, (psk_local)local, 1);
            assert_int_equal(reach(alone), local == PSK_LOCAL_BLOCK ? B_SIZE - 1 : 2 * B_SIZE - 1);
            assert_int_equal(reach(far), N - 1);
            psk_model_free(alone);
            psk_model_free(far);
        }
        psk_device_free(device);
    }
}

/* A step of training without the far part has a loss and a gradient. */
static void test_trains(void **state) {
    (void)state;
    psk_device *device;
    psk_step_bench *bench;
    double loss;
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    psk_model *const model = make_model(device, PSK_LOCAL_WINDOW, 0);
    PSK_TEST_OK(psk_step_bench_create(model, 2, N, 0, &bench));
    PSK_TEST_OK(psk_step_bench_run(bench, &loss));
    assert_true(isfinite(loss) && isfinite(psk_step_bench_grad_norm(bench)) && psk_step_bench_grad_norm(bench) > 0);
    psk_step_bench_free(bench);
    psk_model_free(model);
    psk_device_free(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reach), cmocka_unit_test(test_trains)};
    return cmocka_run_group_tests_name("controls", tests, NULL, NULL);
}
