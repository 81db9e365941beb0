/* polysketch info on the files that the other commands leave. */
#include "program_support.h"

#define SMALL_MODEL                                                                                                    \
    "--preset tiny --width 16 --heads 2 --layers 1 --context 32 --block-size 8 --sketch-size 4 --threads 1 "

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    write_story("story.txt");
    expect_run("prepare story.txt --output tokens", 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

static void expect_absent(const char *part) {
    char *const out = read_text("out");
    if (strstr(out, part))
        fail_msg("\"%s\" is in: %s", part, out);
    psk_free(out);
}

static void data_folder(void **state) {
    (void)state;
    expect_run("info tokens", 0);
    EXPECT_IN("out", "finished true;", "skip_bad_lines false;", "train-00000.psk: ");
    expect_absent("first_skipped");
    expect_absent("polysketch prepare");
}

/* A bad line in the second file: what is done stays. */
static void unfinished_folder(void **state) {
    (void)state;
    write_text("good.jsonl", "{\"text\": \"good\"}\n");
    write_text("bad.jsonl", "{\"text\": 5}\n");
    expect_run("prepare good.jsonl bad.jsonl --output begun", 1);
    expect_run("info begun", 0);
    EXPECT_IN("out", "finished false;", "unfinished ", "`polysketch prepare`");
}

static void broken_files(void **state) {
    (void)state;
    expect_run("prepare story.txt --output broken", 0);
    write_text("broken/prepare.json", "{\"version\": 1,");
    expect_run("info broken", 1);
    EXPECT_IN("err", "broken/prepare.json: ", "line 1");
    EXPECT_IN("out", "train-00000.psk: "); /* what can be told is told */
    write_text("broken/prepare.json", "[1]");
    expect_run("info broken", 1);
    EXPECT_IN("err", "broken/prepare.json: ", "object");
}

static void tensor_files(void **state) {
    (void)state;
    expect_run("train --data tokens --output run --steps 1 --batch-size 1 " SMALL_MODEL, 0);
    expect_run("info run/model.safetensors", 0);
    EXPECT_IN("out", "run/model.safetensors: safetensors, ", " tensors, ", " numbers, ");
    expect_run("generate --model run --prompt Once --max-tokens 3 --state-out x.state", 0);
    expect_run("info x.state", 0);
    char hash[40], out[1024], *const text = read_text("out");
    snprintf(out, sizeof out, "%s", text);
    psk_free(text);
    EXPECT_IN("out", "x.state: the state of a sequence after 7 tokens, of the model ", " tensors, ");
    assert_int_equal(sscanf(strstr(out, "of the model "), "of the model %39[0-9a-f]", hash), 1);
    assert_int_equal(strlen(hash), 32);
}

/* What is none of them is not called a bad shard, and a damaged header does no harm. */
static void other_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size;
    } files[] = {{"", 0},
                 {"text", 4},
                 {"\2\0\0\0\0\0\0\0{", 9},
                 {"\2\0\0\0\0\0\0\0{[", 10},
                 {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10},
                 {"\0\0\0\0\0\0\0\0{}", 10}};
    char path[600];
    snprintf(path, sizeof path, "%s/other", folder);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        PSK_TEST_OK(psk_write_file(path, files[i].text, files[i].size));
        expect_run("info other", 1);
        EXPECT_IN("err", "other", "a shard");
    }
    static const char odd[] = "\x35\0\0\0\0\0\0\0{\"a\": 5, \"b\": {\"shape\": [2, \"x\"]}, \"__metadata__\": 1}";
    PSK_TEST_OK(psk_write_file(path, odd, sizeof odd - 1));
    expect_run("info other", 0);
    EXPECT_IN("out", "other: safetensors, 2 tensors, ");
    /* A length with which a terminal would be cleared. */
    static const char loud[] =
        "\x59\0\0\0\0\0\0\0"
        "{\"__metadata__\": {\"format\": \"polysketch session\", \"length\": \"7\\u001b[2J\", \"model\": \"0a\"}}";
    PSK_TEST_OK(psk_write_file(path, loud, sizeof loud - 1));
    expect_run("info other", 0);
    EXPECT_IN("out", "other: safetensors, 0 tensors, ");
    write_text("noise.psk", "this is no shard");
    expect_run("info noise.psk", 1);
    EXPECT_IN("err", "noise.psk");
    expect_run("info tokens/train-00000.psk", 0);
    EXPECT_IN("out", "tokens/train-00000.psk: ", "vocabulary 257");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(data_folder), cmocka_unit_test(unfinished_folder),
                                       cmocka_unit_test(broken_files), cmocka_unit_test(tensor_files),
                                       cmocka_unit_test(other_files)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
