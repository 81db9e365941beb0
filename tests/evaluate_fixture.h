/* What test_evaluate and test_choices share: a small model on bytes, a folder, the loss of a token by its definition.
 */
#ifndef PSK_TESTS_EVALUATE_FIXTURE_H
#define PSK_TESTS_EVALUATE_FIXTURE_H

#include "support.h"

#include "polysketch.h"

#include <math.h>
#include <stdlib.h>

#define VOCABULARY  257
#define END_OF_TEXT 256
#define SEED        7

typedef struct fixture {
    psk_device *device;
    psk_model *model;
    char *folder;
    char path[512];          /* of the file that was written last */
    unsigned char text[512]; /* test_evaluate: `size` bytes of text in it */
    int64_t size;
} fixture;

static inline int fixture_enter(void **state) {
    fixture *const f = calloc(1, sizeof *f);
    psk_model_config config;
    assert_non_null(f);
    print_message("seed %d\n", SEED);
    PSK_TEST_OK(psk_model_config_preset("tiny", &config));
    config.n_positions = 11;
    config.n_embd = 12;
    config.n_head = 2;
    config.n_layer = 1;
    config.attention.block_size = 4;
    config.attention.sketch_size = 3;
    PSK_TEST_OK(psk_device_create("reference", 1, &f->device));
    PSK_TEST_OK(psk_model_create(f->device, &config, SEED, &f->model));
    f->folder = psk_test_folder();
    *state = f;
    return 0;
}

static inline int fixture_leave(void **state) {
    fixture *const f = *state;
    psk_test_remove_folder(f->folder);
    psk_model_free(f->model);
    psk_device_free(f->device);
    free(f);
    return 0;
}

/* -log softmax(logits)[target] */
static inline double token_loss(const float *logits, int32_t target) {
    double largest = -INFINITY, sum = 0;
    for (int v = 0; v < VOCABULARY; v++)
        largest = fmax(largest, (double)logits[v]);
    for (int v = 0; v < VOCABULARY; v++)
        sum += exp((double)logits[v] - largest);
    return largest + log(sum) - (double)logits[target];
}

#endif
