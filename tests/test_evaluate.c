/* psk_evaluate against losses computed from psk_model_logits, window by window, in double. */
#include "evaluate_fixture.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/text_cut.h"
#include "data/text_tokens.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if PSK_WITH_ZLIB
#include <zlib.h>
#endif

static void write_text(fixture *f, const char *name, int64_t size) {
    psk_rng rng = psk_rng_make(SEED, psk_rng_stream(name));
    f->size = size;
    for (int64_t i = 0; i < size; i++)
        f->text[i] = (unsigned char)psk_rng_below(&rng, 256);
    snprintf(f->path, sizeof f->path, "%s/%s", f->folder, name);
    PSK_TEST_OK(psk_write_file(f->path, f->text, (size_t)size));
}

/* Mean loss of tokens 1 ... counted in windows of N. lm_head.bias is part of the logits. */
static double expected_loss(const fixture *f, const int32_t *tokens, int64_t counted, int64_t N) {
    double sum = 0;
    for (int64_t first = 0; first < counted; first += N) {
        const int64_t length = counted - first < N ? counted - first : N;
        float *const logits = psk_test_buffer(length * VOCABULARY);
        PSK_TEST_OK(psk_model_logits(f->model, 1, length, tokens + first, logits));
        for (int64_t i = 0; i < length; i++)
            sum += token_loss(logits + i * VOCABULARY, tokens[first + i + 1]);
        psk_test_free(logits);
    }
    return sum / (double)counted;
}

static psk_eval_result evaluate(fixture *f, const psk_eval_options *options) {
    psk_eval_result result;
    PSK_TEST_OK(psk_evaluate(f->model, options, &result));
    return result;
}

static psk_eval_options text_options(const fixture *f, int64_t context, int64_t batch_size, int64_t max_tokens) {
    psk_eval_options options = psk_eval_options_default();
    options.data = f->path;
    options.context = context;
    options.batch_size = batch_size;
    options.max_tokens = max_tokens;
    return options;
}

static void check_text(fixture *f, int64_t context, int64_t batch_size, int64_t max_tokens) {
    int32_t tokens[513];
    for (int64_t i = 0; i < f->size; i++)
        tokens[i] = f->text[i];
    tokens[f->size] = END_OF_TEXT;
    const int64_t counted = max_tokens && max_tokens < f->size ? max_tokens : f->size;
    const int64_t bytes = counted == f->size ? f->size - 1 : counted; /* end-of-text is a target without a byte */
    const double loss = expected_loss(f, tokens, counted, context ? context : 11);
    const psk_eval_options options = text_options(f, context, batch_size, max_tokens);
    const psk_eval_result result = evaluate(f, &options);
    assert_int_equal(result.tokens, counted);
    assert_int_equal(result.bytes, bytes);
    PSK_TEST_AT_MOST(fabs(result.loss / loss - 1), 1e-5);
    PSK_TEST_AT_MOST(fabs(result.perplexity / exp(result.loss) - 1), 1e-12);
    if (bytes > 0)
        PSK_TEST_AT_MOST(fabs(result.bits_per_byte / (result.loss / log(2.0) * (double)counted / (double)bytes) - 1),
                         1e-12);
    else
        assert_true(isnan(result.bits_per_byte));
}

static void test_text(void **state) {
    fixture *const f = *state;
    write_text(f, "text", 41);
    check_text(f, 0, 4, 0);    /* 4 windows of 11, the last one short */
    check_text(f, 7, 1, 0);    /* 6 windows */
    check_text(f, 7, 4, 0);    /* the last batch half empty */
    check_text(f, 1, 5, 0);    /* no context at all */
    check_text(f, 41, 2, 0);   /* one window exactly */
    check_text(f, 1000, 3, 0); /* longer than the text */
    check_text(f, 7, 2, 40);   /* everything but end-of-text */
    check_text(f, 7, 2, 15);
    check_text(f, 7, 2, 1);
    check_text(f, 7, 2, 999);
    write_text(f, "byte", 1);
    check_text(f, 7, 2, 0);
}

/* Losses of all targets of the window that starts at `first`: used of them. */
static void window_losses(const fixture *f, const int32_t *tokens, int64_t first, int64_t used, double *losses) {
    float *const logits = psk_test_buffer(used * VOCABULARY);
    PSK_TEST_OK(psk_model_logits(f->model, 1, used, tokens + first, logits));
    for (int64_t i = 0; i < used; i++)
        losses[i] = token_loss(logits + i * VOCABULARY, tokens[first + i + 1]);
    psk_test_free(logits);
}

/* Windows of N at multiples of `stride`; each target from the first window that holds it, the errors and the buckets by
 * their definitions. */
static void check_strided(fixture *f, int64_t N, int64_t stride, int64_t batch_size) {
    int32_t tokens[513];
    double sums[512], losses[512], sum = 0, variance = 0;
    int64_t counts[512], windows = 0, done = 0;
    double bucket_sum[PSK_EVAL_BUCKETS] = {0};
    int64_t bucket_count[PSK_EVAL_BUCKETS] = {0};
    for (int64_t i = 0; i < f->size; i++)
        tokens[i] = f->text[i];
    tokens[f->size] = END_OF_TEXT;
    psk_eval_options options = text_options(f, N, batch_size, 0);
    options.stride = stride;
    const psk_eval_result result = evaluate(f, &options);
    for (int64_t first = 0; done < f->size; first += stride, windows++) {
        const int64_t used = f->size - first < N ? f->size - first : N;
        window_losses(f, tokens, first, used, losses);
        sums[windows] = 0;
        counts[windows] = first + used - done;
        for (int64_t i = done - first; i < used; i++)
            sums[windows] += losses[i];
        for (int64_t i = 0; i < used; i++)
            for (int64_t b = 0; b < result.bucket_count; b++)
                if (i + 1 >= result.buckets[b].first && i + 1 <= result.buckets[b].last) {
                    bucket_sum[b] += losses[i];
                    bucket_count[b]++;
                }
        sum += sums[windows];
        done = first + used;
    }
    assert_int_equal(result.tokens, f->size);
    PSK_TEST_AT_MOST(fabs(result.loss / (sum / (double)f->size) - 1), 1e-5);
    for (int64_t w = 0; w < windows; w++)
        variance +=
            pow(sums[w] - sum / (double)f->size * (double)counts[w], 2) * (double)windows / (double)(windows - 1);
    PSK_TEST_AT_MOST(fabs(result.standard_error / (sqrt(variance) / (double)f->size) - 1), 1e-4);
    int64_t next = 1;
    for (int64_t b = 0; b < result.bucket_count; b++) {
        assert_int_equal(result.buckets[b].first, next);
        assert_int_equal(result.buckets[b].tokens, bucket_count[b]);
        PSK_TEST_AT_MOST(fabs(result.buckets[b].loss / (bucket_sum[b] / (double)bucket_count[b]) - 1), 1e-5);
        next = result.buckets[b].last + 1;
    }
    assert_int_equal(next, N + 1);
}

static void test_strided(void **state) {
    fixture *const f = *state;
    write_text(f, "strided", 97);
    check_strided(f, 11, 11, 3);
    check_strided(f, 11, 1, 4);
    check_strided(f, 11, 4, 5);
    check_strided(f, 16, 10, 2); /* windows end with the text */
    check_strided(f, 64, 33, 1); /* exactly two */
}

/* Buckets of 1, 2, 3, 4-5, 6-7, 8-11, 12-15 and 16-17 tokens of context; one window has no error. */
static void test_buckets(void **state) {
    fixture *const f = *state;
    static const int64_t firsts[] = {1, 2, 3, 4, 6, 8, 12, 16};
    write_text(f, "buckets", 17);
    const psk_eval_options options = text_options(f, 17, 1, 0);
    const psk_eval_result result = evaluate(f, &options);
    assert_int_equal(result.bucket_count, 8);
    for (int64_t b = 0; b < 8; b++) {
        assert_int_equal(result.buckets[b].first, firsts[b]);
        assert_int_equal(result.buckets[b].last, b < 7 ? firsts[b + 1] - 1 : 17);
        assert_true(isnan(result.buckets[b].standard_error));
    }
    assert_true(isnan(result.standard_error));
}

/* The first byte is no target: its word counts from the second byte on. */
static void test_words(void **state) {
    fixture *const f = *state;
    static const char text[] = "ab  cd\n\te f ";
    snprintf(f->path, sizeof f->path, "%s/words", f->folder);
    PSK_TEST_OK(psk_write_file(f->path, text, sizeof text - 1));
    for (int64_t context = 1; context < 14; context++) { /* wherever the windows cut */
        const psk_eval_options options = text_options(f, context, 2, 0);
        const psk_eval_result result = evaluate(f, &options);
        assert_int_equal(result.words, 4);
        PSK_TEST_AT_MOST(fabs(result.word_perplexity / exp(result.loss * (double)result.tokens / 4) - 1), 1e-12);
    }
    const psk_eval_options options = text_options(f, 5, 2, 2); /* "b " */
    assert_int_equal(evaluate(f, &options).words, 1);
}

/* Bit for bit: twice, and whatever the batch. */
static void test_repeatable(void **state) {
    fixture *const f = *state;
    write_text(f, "repeat", 101);
    psk_eval_options options = text_options(f, 8, 3, 0);
    options.stride = 5;
    const psk_eval_result first = evaluate(f, &options), second = evaluate(f, &options);
    assert_memory_equal(&first, &second, sizeof first);
    for (int64_t batch = 1; batch < 24; batch++) {
        psk_eval_options other = options;
        other.batch_size = batch;
        const psk_eval_result result = evaluate(f, &other);
        assert_memory_equal(&first, &result, sizeof first);
    }
}

static void prepare(const char *const *inputs, int64_t count, double valid, const char *output) {
    psk_prepare_options options = psk_prepare_options_default();
    psk_prepare_result result;
    options.inputs = inputs;
    options.input_count = count;
    options.output = output;
    options.valid_fraction = valid;
    PSK_TEST_OK(psk_prepare(&options, &result));
}

/* Shards of two documents: the split is one sequence with an end-of-text after each. */
static void test_shards(void **state) {
    fixture *const f = *state;
    char shards[600];
    int32_t tokens[64];
    int64_t count = 0;
    const char *const texts[] = {"first document, ", "and a second"};
    char paths[2][512];
    for (int d = 0; d < 2; d++) {
        snprintf(paths[d], sizeof paths[d], "%s/%d.txt", f->folder, d);
        PSK_TEST_OK(psk_write_file(paths[d], texts[d], strlen(texts[d])));
        for (const char *c = texts[d]; *c; c++)
            tokens[count++] = (unsigned char)*c;
        tokens[count++] = END_OF_TEXT;
    }
    snprintf(shards, sizeof shards, "%s/shards", f->folder);
    prepare((const char *const[]){paths[0], paths[1]}, 2, 0, shards);

    psk_eval_options options = {.data = shards, .split = "train", .context = 9, .batch_size = 2};
    const psk_eval_result result = evaluate(f, &options);
    assert_int_equal(result.tokens, count - 1);
    assert_int_equal(result.bytes, count - 3);
    PSK_TEST_AT_MOST(fabs(result.loss / expected_loss(f, tokens, count - 1, 9) - 1), 1e-5);

    psk_eval_result unused;
    options.split = "valid";
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &unused), PSK_ERROR_FILE, "valid", shards);
    options.split = "test";
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &unused), PSK_ERROR_ARGUMENT, "\"test\"", "valid", "train");
}

static void write_file(fixture *f, const char *name, const char *text, size_t size) {
    snprintf(f->path, sizeof f->path, "%s/%s", f->folder, name);
    PSK_TEST_OK(psk_write_file(f->path, text, size));
}

/* What the file f->path gives is what shards of it give. */
static psk_eval_result expect_as_prepared(fixture *f) {
    char shards[512];
    const psk_eval_options of_text = text_options(f, 9, 2, 0);
    snprintf(shards, sizeof shards, "%s/shards", f->folder);
    PSK_TEST_OK(psk_remove_tree(shards));
    prepare((const char *const[]){f->path}, 1, 0, shards);
    psk_eval_options of_shards = of_text;
    of_shards.data = shards;
    of_shards.split = "train";
    const psk_eval_result a = evaluate(f, &of_text), b = evaluate(f, &of_shards);
    assert_memory_equal(&a, &b, sizeof a);
    return a;
}

/* Files are read as prepare reads them: JSON lines and WikiText as documents, gzip decompressed, in pieces. */
static void test_formats(void **state) {
    fixture *const f = *state;
    static const char lines[] = "{\"text\": \"one \\u00e9\"}\n{\"text\": \"\"}\n\n{\"text\": \"two\"}\n",
                      wiki[] = " = A = \n\n a b \n\n = B = \n\n c \n", text[] = "a text of words\n";
    write_file(f, "lines.jsonl", lines, sizeof lines - 1);
    const psk_eval_result of_lines = expect_as_prepared(f);
    assert_int_equal(of_lines.tokens, 6 + 1 + 3 + 1 - 1);
    assert_int_equal(of_lines.words, 3); /* of the first only the last byte is a target */
    write_file(f, "wiki.txt", wiki, sizeof wiki - 1);
    assert_int_equal(expect_as_prepared(f).tokens, sizeof wiki - 1 + 2 - 1);
    write_file(f, "text.txt", text, sizeof text - 1);
    const psk_eval_result plain = expect_as_prepared(f);
#if PSK_WITH_ZLIB
    snprintf(f->path, sizeof f->path, "%s/text.txt.gz", f->folder);
    const gzFile file = gzopen(f->path, "wb");
    assert_true(file && gzwrite(file, text, sizeof text - 1) == (int)sizeof text - 1);
    assert_int_equal(gzclose(file), Z_OK);
    const psk_eval_result packed = expect_as_prepared(f);
    assert_memory_equal(&plain, &packed, sizeof plain);
#else
    (void)plain;
#endif
    psk_eval_result unused;
    write_file(f, "bad.jsonl", "{\"body\": \"b\"}\n", 14);
    const psk_eval_options bad = text_options(f, 9, 2, 0);
    PSK_TEST_FAILS(psk_evaluate(f->model, &bad, &unused), PSK_ERROR_FORMAT, "bad.jsonl, line 1", "\"body\"");
    write_file(f, "text.xz", "\xFD\x37zXZ\0 and more", 15);
    const psk_eval_options packed_otherwise = text_options(f, 9, 2, 0);
    PSK_TEST_FAILS(psk_evaluate(f->model, &packed_otherwise, &unused), PSK_ERROR_FORMAT, "text.xz", "xz");
}

/* A text longer than the pieces in which it is read. */
static void test_long_text(void **state) {
    fixture *const f = *state;
    enum { SIZE = 2 * PSK_PIECE_BYTES + 1000 };
    char *const text = malloc(SIZE);
    assert_non_null(text);
    for (int i = 0; i < SIZE; i++)
        text[i] = (char)(i % 7 == 6 ? ' ' : 'a' + i / 7 % 26);
    write_file(f, "long", text, SIZE);
    free(text);
    const psk_eval_options options = text_options(f, 11, 4, 30);
    assert_int_equal(evaluate(f, &options).bytes, 30);
    psk_tokens tokens = {0};
    psk_tokenizer *tokenizer;
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    PSK_TEST_OK(psk_text_tokens(f->path, tokenizer, &tokens));
    assert_int_equal(tokens.count, SIZE + 1);
    for (int i = 0; i < SIZE; i++)
        assert_int_equal(tokens.ids[i], i % 7 == 6 ? ' ' : 'a' + i / 7 % 26);
    assert_int_equal(tokens.ids[SIZE], END_OF_TEXT);
    psk_free(tokens.ids);
    psk_tokenizer_free(tokenizer);
}

/* With a tokenizer that has no end-of-text a text ends with its last token. */
static void test_no_end_of_text(void **state) {
    fixture *const f = *state;
    psk_tokenizer *tokenizer;
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    tokenizer->end_of_text = -1;
    write_text(f, "endless", 20);
    psk_eval_options options = text_options(f, 7, 2, 0);
    options.tokenizer = tokenizer;
    assert_int_equal(evaluate(f, &options).tokens, 19);
    psk_tokenizer_free(tokenizer);
}

static void test_refused(void **state) {
    fixture *const f = *state;
    psk_eval_result result;
    psk_eval_options options = text_options(f, 7, 2, 0);
    write_text(f, "refused", 20);
    options.batch_size = 0;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "batch_size 0");
    options = text_options(f, -1, 2, 0);
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "context -1");
    options = text_options(f, INT64_C(1) << 40, 2, 0);
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "context 1099511627776");
    options = text_options(f, 7, 2, 0);
    options.stride = 8;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "stride 8", "7");
    options.stride = -1;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "stride -1");
    options = text_options(f, 7, 2, -5);
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "max_tokens -5");
    options = text_options(f, 7, 2, 0);
    options.data = NULL;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "no data");
    options.data = "/nowhere/at/all";
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_FILE, "/nowhere/at/all");
    write_text(f, "empty", 0);
    options.data = f->path;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_FORMAT, f->path, "is empty");
    write_file(f, "empty.jsonl", "{\"text\": \"\"}\n", 13);
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_ARGUMENT, "at least 2 tokens", "it has 0");
    options.data = f->folder;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_FORMAT, "prepare");
}

static void test_small_vocabulary(void **state) {
    fixture *const f = *state;
    psk_model *model;
    psk_eval_result result;
    psk_model_config config = *psk_model_get_config(f->model);
    config.vocab_size = 200;
    write_text(f, "vocabulary", 20);
    const psk_eval_options options = text_options(f, 7, 2, 0);
    PSK_TEST_OK(psk_model_create(f->device, &config, SEED, &model));
    PSK_TEST_FAILS(psk_evaluate(model, &options, &result), PSK_ERROR_ARGUMENT, "257", "200");
    psk_model_free(model);
}

static void test_not_finite(void **state) {
    fixture *const f = *state;
    psk_model *model;
    psk_model_tensor tensor;
    psk_eval_result result;
    write_text(f, "finite", 20);
    const psk_eval_options options = text_options(f, 7, 2, 0);
    PSK_TEST_OK(psk_model_create(f->device, psk_model_get_config(f->model), SEED, &model));
    assert_true(psk_model_tensor_at(model, 0, &tensor));
    for (int64_t i = 0; i < tensor.shape[0]; i++)
        tensor.data[i] = NAN;
    PSK_TEST_FAILS(psk_evaluate(model, &options, &result), PSK_ERROR_NUMERIC, "token", f->path);
    psk_model_free(model);
}

typedef struct calls {
    int64_t count, stop_at, last, total;
} calls;

static int on_progress(void *user, int64_t done, int64_t total) {
    calls *const c = user;
    assert_true(done > c->last && done <= total);
    c->last = done;
    c->total = total;
    return ++c->count == c->stop_at;
}

static void test_progress(void **state) {
    fixture *const f = *state;
    psk_eval_result result;
    calls all = {0}, some = {.stop_at = 2};
    write_text(f, "progress", 50);
    psk_eval_options options = text_options(f, 7, 2, 0);
    options.progress = on_progress;
    options.user = &all;
    PSK_TEST_OK(psk_evaluate(f->model, &options, &result));
    assert_int_equal(all.count, 4);
    assert_int_equal(all.last, 50);
    assert_int_equal(all.total, 50);
    options.user = &some;
    PSK_TEST_FAILS(psk_evaluate(f->model, &options, &result), PSK_ERROR_INTERRUPTED, "28 of 50");
}

static psk_status evaluate_once(void *state) {
    fixture *const f = state;
    psk_eval_result result;
    const psk_eval_options options = text_options(f, 7, 2, 0);
    return psk_evaluate(f->model, &options, &result);
}

static void test_out_of_memory(void **state) {
    fixture *const f = *state;
    write_text(f, "memory", 20);
    assert_true(psk_test_allocation_failures(evaluate_once, f) >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_strided),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_no_end_of_text),
        cmocka_unit_test(test_small_vocabulary),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("evaluate", tests, fixture_enter, fixture_leave);
}
