/* What the tests of psk_prepare share: a preparation, what it made as text, compressed files, equal folders. */
#ifndef PSK_TESTS_PREPARE_SUPPORT_H
#define PSK_TESTS_PREPARE_SUPPORT_H

#include "base/memory.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "data_support.h"

#include <stdlib.h>

#if PSK_WITH_ZLIB
#include <zlib.h>
#endif
#if PSK_WITH_ZSTD
#include <zstd.h>
#endif

#define SEED       11
#define FILE_LIMIT (64 << 20)

static inline int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

/* A preparation of up to four inputs of the test's folder into its folder `out`, with nothing held out. */
typedef struct recipe {
    char paths[4][512], output[512];
    const char *inputs[4];
    psk_prepare_options options;
    psk_prepare_result result;
} recipe;

static inline void make_recipe(recipe *r, const char *output, const char *const *inputs, int count) {
    *r = (recipe){.options = psk_prepare_options_default()};
    snprintf(r->output, sizeof r->output, "%s/%s", folder, output);
    for (int i = 0; i < count; i++) {
        snprintf(r->paths[i], sizeof r->paths[i], "%s/%s", folder, inputs[i]);
        r->inputs[i] = r->paths[i];
    }
    r->options.inputs = r->inputs;
    r->options.input_count = count;
    r->options.output = r->output;
    r->options.valid_fraction = 0;
}

static inline void make_one(recipe *r, const char *input) {
    make_recipe(r, "out", &input, 1);
}

/* The tokens of a split as text, end-of-text as '|'. Valid until the next call but one. */
static inline const char *split_text(const char *output, const char *split) {
    static char texts[2][4096];
    static int next;
    char *const text = texts[next++ % 2];
    psk_dataset dataset;
    int32_t token;
    PSK_TEST_OK(psk_dataset_open(output, split, &dataset));
    assert_true(dataset.tokens < 4096);
    for (int64_t i = 0; i < dataset.tokens; i++) {
        PSK_TEST_OK(psk_dataset_read(&dataset, i, 1, &token));
        text[i] = token == 256 ? '|' : (char)token;
    }
    text[dataset.tokens] = 0;
    psk_dataset_close(&dataset);
    return text;
}

/* Prepares, compares both splits, removes the output. valid == NULL: there must be none. */
static inline void expect_splits(recipe *r, const char *train, const char *valid) {
    PSK_TEST_OK(psk_prepare(&r->options, &r->result));
    assert_string_equal(split_text(r->output, "train"), train);
    assert_string_equal(split_text(r->output, "valid"), valid ? valid : "");
    assert_int_equal(r->result.train_tokens, strlen(train));
    assert_int_equal(r->result.valid_tokens, valid ? strlen(valid) : 0);
    PSK_TEST_OK(psk_prepare_check(r->output, &r->result));
    PSK_TEST_OK(psk_remove_tree(r->output));
}

static inline void compress_file(const char *from, const char *to, bool append) {
    char *text;
    size_t size;
    (void)to; /* of builds without both libraries */
    (void)append;
    PSK_TEST_OK(psk_read_file(in_folder(from), FILE_LIMIT, &text, &size));
#if PSK_WITH_ZLIB
    if (strcmp(to + strlen(to) - 3, ".gz") == 0) {
        const gzFile file = gzopen(in_folder(to), append ? "ab" : "wb");
        assert_non_null(file);
        assert_true(gzwrite(file, text, (unsigned)size) == (int)size);
        assert_int_equal(gzclose(file), Z_OK);
    }
#endif
#if PSK_WITH_ZSTD
    if (strcmp(to + strlen(to) - 4, ".zst") == 0) {
        const size_t bound = ZSTD_compressBound(size);
        char *const bytes = malloc(bound);
        ZSTD_CCtx *const context = ZSTD_createCCtx();
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1); /* as the program zstd does */
        const size_t made = ZSTD_compress2(context, bytes, bound, text, size);
        ZSTD_freeCCtx(context);
        FILE *const file = fopen(in_folder(to), append ? "ab" : "wb");
        assert_true(!ZSTD_isError(made) && file && fwrite(bytes, 1, made, file) == made);
        fclose(file);
        free(bytes);
    }
#endif
    psk_free(text);
}

/* Both folders hold the same files with the same bytes; returns how many. */
static inline int64_t expect_equal_folders(const char *a, const char *b) {
    char **names, **others, path[2][1024], *text[2];
    int64_t count, other;
    size_t size[2];
    PSK_TEST_OK(psk_list_folder(a, &names, &count));
    PSK_TEST_OK(psk_list_folder(b, &others, &other));
    assert_int_equal(count, other);
    for (int64_t i = 0; i < count; i++) {
        assert_string_equal(names[i], others[i]);
        for (int j = 0; j < 2; j++) {
            snprintf(path[j], sizeof path[j], "%s/%s", j ? b : a, names[i]);
            PSK_TEST_OK(psk_read_file(path[j], FILE_LIMIT, &text[j], &size[j]));
        }
        if (size[0] != size[1] || memcmp(text[0], text[1], size[0]) != 0)
            fail_msg("%s differs", names[i]);
        psk_free(text[0]);
        psk_free(text[1]);
    }
    psk_free_names(names, count);
    psk_free_names(others, other);
    return count;
}

/* Bytes with spaces and line ends, otherwise any; never 0, so that a text may be a JSON string of it. */
static inline char *make_bytes(int64_t size, uint64_t seed) {
    psk_rng rng = psk_rng_make(seed, psk_rng_stream("text"));
    char *const text = malloc((size_t)size + 1);
    for (int64_t i = 0; i < size; i++) {
        const uint32_t word = psk_rng_u32(&rng);
        text[i] = (char)(word % 7 == 0 ? ' ' : word % 61 == 0 ? '\n' : 'a' + word / 64 % 26);
    }
    text[size] = 0;
    return text;
}

#endif
