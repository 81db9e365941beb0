/* The standard streams of polysketch: full, closed, and named "-". */
#include "program_support.h"

#define CLOSED "2>err >&-; exit $?; true"        /* behind arguments: standard output is closed */
#define FULL   "2>err >/dev/full; exit $?; true" /* and here it is full */

#define TRAIN                                                                                                          \
    "train --data tokens --preset tiny --width 16 --heads 2 --layers 1 --context 32 --block-size 8 --sketch-size 4 "   \
    "--threads 1 --steps 2 --batch-size 2 "
#define GENERATE "generate --model run --threads 1 --prompt abc --max-tokens 5 "

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    write_story("story.txt");
    expect_run("prepare story.txt --output tokens --valid 0.2", 0);
    expect_run(TRAIN "--output run", 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- full and closed
 */

static const char *const commands[] = {
    "--help",
    "--version",
    "train --help",
    "bench --help",
    "info",
    "info run",
    "train --preset tiny --dry-run",
    "eval --model run --data story.txt",
    GENERATE,
    "tokenizer encode story.txt --tokenizer bytes",
    "task induction_heads --mechanisms softmax --steps 1 --length 8 --test-lengths 8 --width 8 --heads 1 --layers 1",
    "bench matmul --sizes 16 --samples 1 --threads 1",
};

static void test_lost_output(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "%s " FULL, commands[i]);
        expect_run(arguments, 1);
        EXPECT_IN("err", "cannot write");
        snprintf(arguments, sizeof arguments, "%s " CLOSED, commands[i]);
        expect_run(arguments, 1);
        EXPECT_IN("err", "cannot write");
    }
    expect_run("--version " CLOSED, 1);
    EXPECT_IN("err", "cannot write to standard output: Bad file descriptor");
    expect_run(TRAIN "--output lost " FULL, 1);
    EXPECT_IN("err", "cannot write to standard output: No space left on device");
    expect_run("prepare story.txt --output lost-tokens " FULL, 1);
    EXPECT_IN("err", "cannot write to standard output: No space left on device");
}

/* A reader that goes away is no error. */
static void test_closed_pipe(void **state) {
    (void)state;
    expect_run("--help 2>pipe | true", 0);
    char *const err = read_text("pipe");
    assert_string_equal(err, "");
    psk_free(err);
}

/* No file of ours gets what was meant for a stream that is closed. */
static void test_closed_streams(void **state) {
    (void)state;
    expect_run(GENERATE "--logprobs whole.jsonl", 0);
    expect_run(GENERATE "--logprobs cut.jsonl --state-out cut.state " CLOSED, 1);
    char *const text = read_text("cut.jsonl");
    assert_null(strstr(text, "abc"));
    psk_free(text);
    expect_run(GENERATE "--logprobs quiet.jsonl 2>&- >out; exit $?; true", 0);
    char *const whole = read_text("whole.jsonl"), *const quiet = read_text("quiet.jsonl");
    assert_string_equal(whole, quiet);
    psk_free(whole);
    psk_free(quiet);
    expect_run("generate --model run --max-tokens 1 <&- >out 2>err; exit $?; true", 1);
    EXPECT_IN("err", "cannot read standard input: Bad file descriptor");
}

/* --------------------------------------------------------------------------------------------------------- named "-"
 */

/* A program reads what is on standard output: it is JSON and nothing else. */
static void test_records_on_output(void **state) {
    (void)state;
    expect_run("eval --model run --data story.txt --json named.json", 0);
    expect_run("eval --model run --data story.txt --json -", 0);
    EXPECT_IN("err", "perplexity");
    static const struct {
        const char *arguments;
        size_t lines;
    } tables[] = {
        {"bench matmul --sizes 16 --samples 1 --threads 1 --json -", 1},
        {"task induction_heads --mechanisms softmax --steps 1 --length 8 --test-lengths 8,16 --width 8 --heads 1 "
         "--layers 1 --json -",
         2},
    };
    json_t *const whole = read_json("out"), *const named = read_json("named.json");
    assert_true(json_equal(json_object_get(whole, "loss"), json_object_get(named, "loss")));
    json_decref(whole);
    json_decref(named);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        expect_run(tables[i].arguments, 0);
        json_t *const lines = read_json_lines("out");
        assert_int_equal(json_array_size(lines), tables[i].lines);
        json_decref(lines);
    }
    expect_run("eval --model run --data story.txt --json - " FULL, 1);
    EXPECT_IN("err", "polysketch eval: cannot write to standard output: No space left on device");
    assert_int_equal(run_with_input("/dev/null", "info ./-"), 1); /* no file has that name */
}

static void test_text_from_input(void **state) {
    (void)state;
    expect_run("eval --model run --data story.txt --json named.json", 0);
    expect_run_with_input("story.txt", "eval --model run --data - --json read.json", 0);
    expect_run("--version; cat story.txt | '" PSK_PROGRAM
               "' eval --model run --data - --json piped.json 2>err; exit $?; true",
               0);
    json_t *const named = read_json("named.json");
    static const char *const others[] = {"read.json", "piped.json"};
    for (size_t i = 0; i < 2; i++) {
        json_t *const other = read_json(others[i]);
        assert_true(json_equal(json_object_get(other, "loss"), json_object_get(named, "loss")));
        json_decref(other);
    }
    json_decref(named);
}

static void test_no_streams(void **state) {
    (void)state;
    static const char *const options[] = {"--logprobs", "--state-in", "--state-out"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, GENERATE "%s -", options[i]);
        expect_run(arguments, 2);
        EXPECT_IN("err", options[i], "a file is needed, - is none");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_output),     cmocka_unit_test(test_closed_pipe),
        cmocka_unit_test(test_closed_streams),  cmocka_unit_test(test_records_on_output),
        cmocka_unit_test(test_text_from_input), cmocka_unit_test(test_no_streams),
    };
    return cmocka_run_group_tests_name("program_streams", tests, set_up, tear_down);
}
