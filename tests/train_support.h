/* A small model, small data and a run on them, for the tests of training. */
#ifndef PSK_TESTS_TRAIN_SUPPORT_H
#define PSK_TESTS_TRAIN_SUPPORT_H

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/model.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fixture {
    char *folder;     /* of the test */
    char data[512];   /* train and valid shards */
    char output[512]; /* of the run; not made yet */
    psk_device *device;
    psk_model *model;
} fixture;

static inline psk_model_config small_config(void) {
    psk_attention_config attention = psk_attention_config_default();
    attention.block_size = 4;
    attention.sketch_size = 4;
    return (psk_model_config){
        .vocab_size = 257, .n_positions = 16, .n_embd = 16, .n_layer = 2, .n_head = 2, .attention = attention};
}

/* f->data from documents of `bytes` bytes of words each, at most 2,048. */
static inline void small_data(const fixture *f, int64_t documents, size_t bytes, double valid_fraction) {
    static const char words[] = "the cat sat on the mat and the dog ran to the cat; ";
    char texts[512], path[600], text[2048];
    const char *inputs[] = {texts};
    psk_prepare_options options = psk_prepare_options_default();
    psk_prepare_result result;
    snprintf(texts, sizeof texts, "%s/texts", f->folder);
    PSK_TEST_OK(psk_make_folders(texts));
    for (int64_t i = 0; i < documents; i++) {
        for (size_t j = 0; j < bytes; j++)
            text[j] = words[(j + 7 * (size_t)i) % (sizeof words - 1)];
        snprintf(path, sizeof path, "%s/%lld.txt", texts, (long long)i);
        PSK_TEST_OK(psk_write_file(path, text, bytes));
    }
    options.inputs = inputs;
    options.input_count = 1;
    options.output = f->data;
    options.valid_fraction = valid_fraction;
    options.shard_tokens = 1000;
    PSK_TEST_OK(psk_prepare(&options, &result));
}

static inline void fixture_begin(fixture *f, const char *device) {
    const psk_model_config config = small_config();
    *f = (fixture){.folder = psk_test_folder()};
    snprintf(f->data, sizeof f->data, "%s/data", f->folder);
    snprintf(f->output, sizeof f->output, "%s/run", f->folder);
    PSK_TEST_OK(psk_device_create(device, 2, &f->device));
    PSK_TEST_OK(psk_model_create(f->device, &config, 11, &f->model));
}

static inline void fixture_end(fixture *f) {
    psk_model_free(f->model);
    psk_device_free(f->device);
    psk_test_remove_folder(f->folder);
}

static inline psk_train_options small_options(const fixture *f) {
    psk_train_options options = psk_train_options_default();
    options.data = f->data;
    options.output = f->output;
    options.steps = 8;
    options.batch_size = 2;
    options.context = 16;
    options.learning_rate = 1e-2;
    options.min_learning_rate = 1e-3;
    options.warmup_steps = 2;
    options.eval_every = 4;
    options.eval_batches = 2;
    options.save_every = 4;
    return options;
}

/* These tests write hundreds of files that are synced one by one: into memory, where there is such a folder. */
static inline void prefer_memory_folder(void) {
    if (psk_is_folder("/dev/shm"))
        setenv("TMPDIR", "/dev/shm", 0);
}

/* "folder/a/b" in one of eight buffers. */
static inline const char *path_in(const char *parent, const char *name) {
    static char paths[8][2048];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", parent, name);
    return path;
}

/* Names in a folder, "a b c "; "" if there is no such folder. */
static inline const char *names_in(const char *parent) {
    static char text[1024];
    char **names;
    int64_t count;
    *text = 0;
    if (!psk_is_folder(parent))
        return text;
    PSK_TEST_OK(psk_list_folder(parent, &names, &count));
    for (int64_t i = 0; i < count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", names[i]);
    psk_free_names(names, count);
    return text;
}

static inline void assert_link(const char *folder, const char *name, const char *expected) {
    char target[256];
    const ssize_t size = readlink(path_in(folder, name), target, sizeof target - 1);
    assert_true(size > 0);
    target[size] = 0;
    assert_string_equal(target, expected);
}

/* Fails unless all weights of two models are the same, bit for bit. */
static inline void assert_same_weights(const psk_model *a, const psk_model *b) {
    for (int64_t i = 0; i < a->params.count; i++) {
        const psk_param *param = &a->params.list[i];
        if (memcmp(a->weights + param->offset, b->weights + param->offset, (size_t)param->count * sizeof(float)) != 0)
            fail_msg("%s differs", param->name);
    }
}

#endif
