/* psk_prepare with any number of threads, stopped or killed and gone on with: always the same files. */
#include "base/json.h"
#include "data/split_writer.h"
#include "data/text_cut.h"
#include "prepare_support.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define CORPUS_LINES  (PSK_WITH_ZLIB ? "b.jsonl.gz" : "b.jsonl")
#define CORPUS_TOKENS 400000 /* a shard of it; it has several */

/* A text of 1.5 MB, JSON lines of 2 MB, compressed where it can be, and WikiText of 1 MB. */
static void write_corpus(void) {
    char *const text = make_bytes(1500000, SEED), *const json = malloc(2500000);
    PSK_TEST_OK(psk_write_file(in_folder("a.txt"), text, 1500000));
    size_t used = 0;
    psk_rng rng = psk_rng_make(SEED, psk_rng_stream("lines"));
    for (int n = 0; used < 2000000; n++) {
        const int length = (int)psk_rng_below(&rng, n % 100 ? 4000 : 400000), at = (int)psk_rng_below(&rng, 1000000);
        used += (size_t)sprintf(json + used, "{\"n\": %d, \"text\": \"", n);
        for (int i = 0; i < length; i++)
            json[used++] = text[at + i] == '\n' ? ' ' : text[at + i];
        used += (size_t)sprintf(json + used, "\"}\n");
    }
    PSK_TEST_OK(psk_write_file(in_folder("b.jsonl"), json, used));
    used = 0;
    for (int n = 0; used < 1000000; n++) {
        used += (size_t)sprintf(json + used, " \n = Article %d = \n \n", n);
        const size_t length = (size_t)psk_rng_below(&rng, 20000);
        memcpy(json + used, text, length);
        used += length;
        json[used++] = '\n';
    }
    PSK_TEST_OK(psk_write_file(in_folder("c.txt"), json, used));
    compress_file("b.jsonl", CORPUS_LINES, false); /* without zlib it stays as it is */
    free(text);
    free(json);
}

static void make_corpus(recipe *r, const char *output, int threads, psk_split_rule split) {
    make_recipe(r, output, (const char *const[]){"a.txt", CORPUS_LINES, "c.txt"}, 3);
    r->options.valid_fraction = 0.2;
    r->options.split = split;
    r->options.shard_tokens = CORPUS_TOKENS;
    r->options.threads = threads;
}

static void threads_do_not_matter(void **state) {
    (void)state;
    recipe one, other;
    write_corpus();
    for (int split = PSK_SPLIT_TAIL; split <= PSK_SPLIT_HASH; split++) {
        make_corpus(&one, "one", 1, (psk_split_rule)split);
        PSK_TEST_OK(psk_prepare(&one.options, &one.result));
        assert_in_range(one.result.shards, 8, 20);
        for (int threads = 2; threads <= 4; threads += 2) {
            make_corpus(&other, "other", threads, (psk_split_rule)split);
            PSK_TEST_OK(psk_prepare(&other.options, &other.result));
            assert_true(expect_equal_folders(one.output, other.output) > 8);
            PSK_TEST_OK(psk_remove_tree(other.output));
        }
        PSK_TEST_OK(psk_remove_tree(one.output));
    }
}

typedef struct stopper {
    int calls, stop; /* calls so far; at which to stop */
    bool kill;
} stopper;

static int count_calls(void *user, int64_t done, int64_t total) {
    stopper *const s = user;
    assert_true(done >= 0 && done <= total);
    if (++s->calls < s->stop)
        return 0;
    if (s->kill)
        raise(SIGKILL);
    return 1;
}

/* Shards of a few tokens: a block is many of them, and a stop is heard between any two. What the journal counts is
 * whole blocks; the shards after them are made again. */
static void stopped_between_small_shards(void **state) {
    (void)state;
    enum { SIZE = 300000, SHARD = 50000 }; /* a block of 2^18 bytes or little less, and a second one */
    recipe whole, r;
    char *const text = make_bytes(SIZE, SEED);
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, SIZE));
    free(text);
    make_recipe(&whole, "whole", (const char *const[]){"in.txt"}, 1);
    whole.options.shard_tokens = SHARD;
    PSK_TEST_OK(psk_prepare(&whole.options, &whole.result));
    assert_int_equal(whole.result.shards, 1 + SIZE / SHARD);
    for (int shards = 1; shards <= SIZE / SHARD; shards++) {
        stopper s = {.stop = 1 + shards}; /* the first call comes before there is any */
        make_one(&r, "in.txt");
        r.options.shard_tokens = SHARD;
        r.options.progress = count_calls;
        r.options.user = &s;
        PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_INTERRUPTED, "goes on from there");
        const int64_t counted = r.result.train_tokens / SHARD;
        assert_in_range(counted, shards > PSK_PIECE_BYTES / SHARD ? 5 : 0, shards);
        assert_true(psk_is_folder(r.output) == (counted > 0));
        r.options.progress = NULL;
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        assert_memory_equal(&r.result, &whole.result, sizeof r.result);
        expect_equal_folders(r.output, whole.output);
        PSK_TEST_OK(psk_remove_tree(r.output));
    }
}

typedef struct journal_watch {
    char path[600];
    int64_t counted; /* train_tokens, as the file said last */
    int changes;
} journal_watch;

static int watch_journal(void *user, int64_t done, int64_t total) {
    journal_watch *const watch = user;
    json_t *object;
    int64_t counted = 0;
    (void)done;
    (void)total;
    PSK_TEST_OK(psk_json_load(watch->path, &object));
    PSK_TEST_OK(psk_json_int(object, watch->path, "train_tokens", watch->counted, INT64_MAX, &counted));
    json_decref(object);
    watch->changes += counted > watch->counted;
    watch->counted = counted;
    return 0;
}

/* What a kill leaves to be done again is a block, not all that is under way. */
static void journal_follows_blocks(void **state) {
    (void)state;
    enum { BLOCKS = 4, SIZE = BLOCKS * PSK_PIECE_BYTES };
    recipe r;
    journal_watch watch = {.counted = 0};
    char *const text = make_bytes(SIZE, SEED);
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, SIZE));
    free(text);
    make_one(&r, "in.txt");
    snprintf(watch.path, sizeof watch.path, "%s/prepare.json", r.output);
    r.options.threads = 1;
    r.options.shard_tokens = 20000;
    r.options.progress = watch_journal;
    r.options.user = &watch;
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    assert_in_range(watch.changes, BLOCKS, BLOCKS + 1);
}

/* More behind what the journal counts, as a kill leaves it: longer than any shard. */
static void lengthen_partial_shards(const char *output) {
    static const char more[3 * CORPUS_TOKENS];
    char **names, path[1024];
    int64_t count;
    PSK_TEST_OK(psk_list_folder(output, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        if (!strstr(names[i], ".partial"))
            continue;
        snprintf(path, sizeof path, "%s/%s", output, names[i]);
        FILE *const file = fopen(path, "ab");
        assert_true(file && fwrite(more, 1, sizeof more, file) == sizeof more);
        fclose(file);
    }
    psk_free_names(names, count);
}

/* Stopped by Ctrl-C, or killed, after every round in turn: the folder is refused, the same call ends as if nothing had
 * happened. */
static void stop_and_go_on(psk_split_rule split, bool kill) {
    recipe whole, r;
    make_corpus(&whole, "whole", 1, split);
    stopper all = {.stop = 1000};
    whole.options.progress = count_calls;
    whole.options.user = &all;
    PSK_TEST_OK(psk_prepare(&whole.options, &whole.result));
    assert_in_range(all.calls, 10, 25); /* rounds and shards */
    for (int stop = 1; stop <= all.calls; stop++) {
        stopper s = {.stop = stop, .kill = kill};
        psk_dataset dataset;
        make_corpus(&r, "out", 1, split);
        r.options.progress = count_calls;
        r.options.user = &s;
        if (kill) {
            const pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0)
                _exit(psk_prepare(&r.options, &r.result));
            int status;
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_true(WIFSIGNALED(status));
        } else {
            PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_INTERRUPTED, "goes on from there");
        }
        if (stop > 1 || kill) { /* otherwise nothing was written, and nothing is left */
            PSK_TEST_FAILS(psk_dataset_open(r.output, "train", &dataset), PSK_ERROR_FORMAT, "out is not finished");
            PSK_TEST_FAILS(psk_prepare_check(r.output, &r.result), PSK_ERROR_FORMAT, "out is not finished");
            lengthen_partial_shards(r.output);
        }
        r.options.progress = NULL;
        r.options.threads = stop % 2 ? 1 : 3;
        if (kill)
            r.options.threads = 1; /* OpenMP's threads do not survive a fork */
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        assert_memory_equal(&r.result, &whole.result, sizeof r.result);
        expect_equal_folders(r.output, whole.output);
        PSK_TEST_OK(psk_remove_tree(r.output));
    }
    PSK_TEST_OK(psk_remove_tree(whole.output));
}

static void killed_and_resumed(void **state) {
    (void)state;
    write_corpus();
    stop_and_go_on(PSK_SPLIT_TAIL, true);
}

static void stopped_and_resumed(void **state) {
    (void)state;
    write_corpus();
    stop_and_go_on(PSK_SPLIT_HASH, false);
}

/* A full disk at the places where a buffer of text that was counted is lost: in the midst of a shard, and when the last
 * one is closed. Once there is room the same call ends as if nothing had happened. */
static void full_disk_and_resumed(void **state) {
    (void)state;
    enum {
        SIZE = 300000,
        WHOLE = 128 + 2 * (SIZE + 1)
    }; /* of the shard; the first block is of 2^18 bytes or little less */
    const rlim_t limits[] = {1000, 2 * PSK_PIECE_BYTES - 1000, 2 * PSK_PIECE_BYTES + 64, WHOLE - 1000, WHOLE - 1};
    recipe whole, r;
    char *const text = make_bytes(SIZE, SEED);
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, SIZE));
    free(text);
    make_recipe(&whole, "whole", (const char *const[]){"in.txt"}, 1);
    PSK_TEST_OK(psk_prepare(&whole.options, &whole.result));
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        print_message("    %lu bytes\n", (unsigned long)limits[i]);
        make_one(&r, "in.txt");
        psk_test_limit_files(limits[i]);
        const psk_status status = psk_prepare(&r.options, &r.result);
        psk_test_limit_files(RLIM_INFINITY);
        PSK_TEST_FAILS(status, PSK_ERROR_FILE, "train-00000.psk", "cannot write");
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        assert_memory_equal(&r.result, &whole.result, sizeof r.result);
        expect_equal_folders(r.output, whole.output);
        PSK_TEST_OK(psk_remove_tree(r.output));
    }
}

static psk_status append_two(psk_split_writer *writer) {
    int64_t taken;
    return psk_split_writer_append(writer, (const int32_t[]){1, 2}, 2, &taken);
}

/* After a write that failed nothing is taken to be on the disk, though there is room again. */
static void failed_writes_stay_failed(void **state) {
    (void)state;
    psk_tokenizer *tokenizer;
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    for (int closed = 0; closed < 2; closed++) {
        psk_split_writer writer = {.name = "train", .folder = folder, .tokenizer = tokenizer, .shard_tokens = 100};
        PSK_TEST_OK(append_two(&writer));
        psk_test_limit_files(64);
        const psk_status status = closed ? psk_split_writer_close(&writer) : psk_split_writer_sync(&writer);
        psk_test_limit_files(RLIM_INFINITY);
        PSK_TEST_FAILS(status, PSK_ERROR_FILE, "train-00000.psk", "cannot write");
        PSK_TEST_FAILS(psk_split_writer_sync(&writer), PSK_ERROR_FILE, folder, "train", "failed before");
        psk_split_writer_suspend(&writer);
    }
    psk_tokenizer_free(tokenizer);
}

/* A bad line in the middle: what was before it stays; once it is mended the same call goes on. */
static void mended_and_resumed(void **state) {
    (void)state;
    recipe r;
    write_text("a.jsonl", "{\"text\": \"first\"}\n");
    write_text("b.jsonl", "{\"text\": \"second\"}\n{\"txt\": \"third\"}\n");
    make_recipe(&r, "out", (const char *const[]){"a.jsonl", "b.jsonl"}, 2);
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "b.jsonl, line 2");
    assert_int_equal(r.result.documents, 1);
    write_text("b.jsonl", "{\"text\": \"second\"}\n{\"text\": \"third\"}\n");
    expect_splits(&r, "first|second|third|", NULL);
}

/* Or leaving bad lines out is asked for from there on: before there was none, so all is as in one run with it. */
static void bad_lines_left_out_on_resumption(void **state) {
    (void)state;
    recipe whole, r;
    const char *const inputs[] = {"a.jsonl", "b.jsonl"};
    write_text("a.jsonl", "{\"text\": \"first\"}\n");
    write_text("b.jsonl", "{\"text\": \"second\"}\n{\"txt\": \"third\"}\n{\"text\": \"fourth\"}\n");
    make_recipe(&whole, "whole", inputs, 2);
    whole.options.skip_bad_lines = 1;
    PSK_TEST_OK(psk_prepare(&whole.options, &whole.result));
    make_recipe(&r, "out", inputs, 2);
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "b.jsonl, line 2");
    r.options.skip_bad_lines = 1;
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    assert_memory_equal(&r.result, &whole.result, sizeof r.result);
    assert_int_equal(expect_equal_folders(r.output, whole.output), 3);
}

/* What may not change between the two calls. */
static void resume_refuses(void **state) {
    (void)state;
    recipe r;
    stopper s = {.stop = 4}; /* after two shards and a round: in the middle of a.txt */
    write_corpus();
    make_corpus(&r, "out", 1, PSK_SPLIT_TAIL);
    r.options.progress = count_calls;
    r.options.user = &s;
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_INTERRUPTED, "documents");
    r.options.progress = NULL;
#define CHANGED_OPTION(field, value, words)                                                                            \
    make_corpus(&r, "out", 1, PSK_SPLIT_TAIL);                                                                         \
    r.options.field = value;                                                                                           \
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_ARGUMENT, "prepare.json", words)
    CHANGED_OPTION(split, PSK_SPLIT_HASH, "\"split\"");
    CHANGED_OPTION(valid_fraction, 0.3, "\"valid_fraction\"");
    CHANGED_OPTION(shard_tokens, 5, "\"shard_tokens\"");
    CHANGED_OPTION(field, "body", "\"field\"");
    CHANGED_OPTION(format, PSK_FORMAT_TEXT, "\"format\"");
    char *text;
    size_t size;
    PSK_TEST_OK(psk_read_file(in_folder("a.txt"), FILE_LIMIT, &text, &size));
    text[5]++;
    PSK_TEST_OK(psk_write_file(in_folder("a.txt"), text, size));
    make_corpus(&r, "out", 1, PSK_SPLIT_TAIL);
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "a.txt", "has changed");
    PSK_TEST_OK(psk_write_file(in_folder("a.txt"), text, size - 1));
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "a.txt", "1499999 now");
    text[5]--;
    PSK_TEST_OK(psk_write_file(in_folder("a.txt"), text, size));
    psk_free(text);
    write_text("out/train-00002.psk.partial", "short");
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "partial", "shorter");
}

/* Another preparation into the same folder, while this one is at work. */
static int prepare_beside(void *user, int64_t done, int64_t total) {
    psk_prepare_options options = *(const psk_prepare_options *)user;
    psk_prepare_result result;
    (void)done;
    (void)total;
    options.progress = NULL;
    PSK_TEST_FAILS(psk_prepare(&options, &result), PSK_ERROR_FILE, options.output, "another process");
    return 0;
}

static void a_folder_has_one_writer(void **state) {
    (void)state;
    recipe r;
    write_corpus();
    make_corpus(&r, "out", 1, PSK_SPLIT_TAIL);
    r.options.progress = prepare_beside;
    r.options.user = &r.options;
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    PSK_TEST_OK(psk_prepare_check(r.output, &r.result));
}

/* Lines that were left out would be in what comes after. */
static void bad_lines_stay_left_out(void **state) {
    (void)state;
    recipe r;
    write_text("a.jsonl", "{\"text\": \"first\"}\n{\"txt\": \"second\"}\n");
    write_text("b.jsonl.gz", "none");
    make_recipe(&r, "out", (const char *const[]){"a.jsonl", "b.jsonl.gz"}, 2);
    r.options.skip_bad_lines = 1;
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "b.jsonl.gz");
    r.options.skip_bad_lines = 0;
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_ARGUMENT, "prepare.json", "\"skip_bad_lines\"");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    signal(SIGXFSZ, SIG_IGN); /* of the tests with a full disk: the write fails instead */
    const struct CMUnitTest tests[] = {
        TEST(killed_and_resumed),        TEST(stopped_and_resumed),
        TEST(mended_and_resumed),        TEST(stopped_between_small_shards),
        TEST(journal_follows_blocks),    TEST(bad_lines_left_out_on_resumption),
        TEST(bad_lines_stay_left_out),   TEST(full_disk_and_resumed),
        TEST(failed_writes_stay_failed), TEST(resume_refuses),
        TEST(threads_do_not_matter),     TEST(a_folder_has_one_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
