/* What test_model and test_session share: every form of attention in a small model whose weights are large enough for
 * each of them to matter. */
#ifndef PSK_TESTS_MODEL_FIXTURE_H
#define PSK_TESTS_MODEL_FIXTURE_H

#include "support.h"

#include "base/rng.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURE_SEED 20240717

static const char *const fixture_devices[] = {"reference", "cpu"};
#define FIXTURE_DEVICES (sizeof fixture_devices / sizeof fixture_devices[0])

/* Softmax, polynomial and performer, the first two also with the keys of a local part alone, and polysketch with every
 * sketch and every local part; then softmax of LayerNormed q and k; then polysketch with a gain for each head, every
 * sketch and every local part once or more. */
static const struct {
    psk_mechanism mechanism;
    psk_sketch sketch;
    psk_local local;
    bool far_gain, qk_norm;
} fixture_forms[] = {
    {PSK_SOFTMAX, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, false, false},
    {PSK_POLYNOMIAL, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, false, false},
    {PSK_PERFORMER, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, false, false},
    {PSK_SOFTMAX, PSK_SKETCH_RANDOM, PSK_LOCAL_BLOCK, false, false},
    {PSK_SOFTMAX, PSK_SKETCH_RANDOM, PSK_LOCAL_WINDOW, false, false},
    {PSK_POLYNOMIAL, PSK_SKETCH_RANDOM, PSK_LOCAL_BLOCK, false, false},
    {PSK_POLYNOMIAL, PSK_SKETCH_RANDOM, PSK_LOCAL_WINDOW, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM, PSK_LOCAL_BLOCK, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM, PSK_LOCAL_WINDOW, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM_HADAMARD, PSK_LOCAL_NONE, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM_HADAMARD, PSK_LOCAL_BLOCK, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM_HADAMARD, PSK_LOCAL_WINDOW, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED, PSK_LOCAL_NONE, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED, PSK_LOCAL_BLOCK, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED, PSK_LOCAL_WINDOW, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED_LINEAR, PSK_LOCAL_NONE, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED_LINEAR, PSK_LOCAL_BLOCK, false, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED_LINEAR, PSK_LOCAL_WINDOW, false, false},
    {PSK_SOFTMAX, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, false, true},
    {PSK_SOFTMAX, PSK_SKETCH_RANDOM, PSK_LOCAL_WINDOW, false, true},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM, PSK_LOCAL_NONE, true, false},
    {PSK_POLYSKETCH, PSK_SKETCH_RANDOM_HADAMARD, PSK_LOCAL_BLOCK, true, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED, PSK_LOCAL_BLOCK, true, false},
    {PSK_POLYSKETCH, PSK_SKETCH_LEARNED_LINEAR, PSK_LOCAL_WINDOW, true, false},
};
#define FIXTURE_FORMS (sizeof fixture_forms / sizeof fixture_forms[0])

/* Two query heads per key/value head; V, F, r and b divide nothing. */
static inline psk_model_config fixture_config(size_t form) {
    psk_model_config config = {.vocab_size = 29,
                               .n_positions = 64,
                               .n_embd = 32,
                               .n_layer = 2,
                               .n_head = 4,
                               .n_kv_head = 2,
                               .position_scale = 1,
                               .attention = psk_attention_config_default()};
    config.attention.mechanism = fixture_forms[form].mechanism;
    config.attention.sketch = fixture_forms[form].sketch;
    config.attention.local = fixture_forms[form].local;
    config.attention.local_only = !psk_attention_uses_ab(&config.attention) && config.attention.local != PSK_LOCAL_NONE;
    config.far_gain = fixture_forms[form].far_gain;
    config.qk_norm = fixture_forms[form].qk_norm;
    config.attention.sketch_size = 5;
    config.attention.block_size = 7;
    return config;
}

/* "polysketch learned window", "polysketch learned block gain" */
static inline const char *fixture_name(size_t form) {
    static char name[64];
    const bool sketched = fixture_forms[form].mechanism == PSK_POLYSKETCH;
    snprintf(name, sizeof name, "%s %s %s%s%s", psk_mechanism_name(fixture_forms[form].mechanism),
             sketched ? psk_sketch_name(fixture_forms[form].sketch) : "",
             fixture_forms[form].mechanism != PSK_PERFORMER ? psk_local_name(fixture_forms[form].local) : "",
             fixture_forms[form].far_gain ? " gain" : "", fixture_forms[form].qk_norm ? " qk_norm" : "");
    return name;
}

static inline psk_device *fixture_device(size_t device) {
    psk_device *out;
    PSK_TEST_OK(psk_device_create(fixture_devices[device], 2, &out));
    return out;
}

/* A new model is nearly linear: its matrices are made ten times larger, its vectors moved away from 0 and 1. */
static inline void fixture_spread(psk_model *model) {
    psk_model_tensor tensor;
    for (int64_t i = 0; psk_model_tensor_at(model, i, &tensor); i++) {
        const int64_t n = tensor.shape[0] * tensor.shape[1];
        const bool sketch = strstr(tensor.name, ".sketch.") != NULL;
        float *noise = psk_test_random(n, FIXTURE_SEED, tensor.name);
        for (int64_t j = 0; tensor.trained && j < n; j++)
            if (tensor.dims == 1)
                tensor.data[j] += 0.2f * noise[j];
            else if (!sketch)
                tensor.data[j] *= 10.0f;
        psk_test_free(noise);
    }
}

static inline psk_model *fixture_model(psk_device *device, const psk_model_config *config) {
    psk_model *model;
    PSK_TEST_OK(psk_model_create(device, config, FIXTURE_SEED, &model));
    fixture_spread(model);
    return model;
}

/* Released by free. */
static inline int32_t *fixture_tokens(int64_t n, int64_t V, uint64_t stream) {
    psk_rng rng = psk_rng_make(FIXTURE_SEED, stream);
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    assert_non_null(tokens);
    for (int64_t i = 0; i < n; i++)
        tokens[i] = (int32_t)psk_rng_below(&rng, (uint64_t)V);
    return tokens;
}

#endif
