/* polysketch prepare, as a user calls it: what it advises. */
#include "program_support.h"

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

/* ----------------------------------------------------------------------------------------------------- the next line
 */

#define SMALL_STEP                                                                                                     \
    " --preset tiny --width 16 --heads 2 --layers 1 --sketch-size 4 --steps 1 --batch-size 1 --threads 1 "             \
    "--warmup-steps 0"

/* The command that the output advises works as it stands. */
static void expect_advice_works(void) {
    static const char before[] = "next: polysketch ";
    char command[1024], out[1024], *const text = read_text("out");
    snprintf(out, sizeof out, "%s", text);
    psk_free(text);
    char *const advice = strstr(out, before);
    assert_non_null(advice);
    advice[strcspn(advice, "\n")] = 0;
    print_message("    %s\n", advice);
    assert_non_null(strstr(advice, "train --data "));
    snprintf(command, sizeof command, "%s" SMALL_STEP, advice + strlen(before));
    expect_run(command, 0);
}

static void advice_can_be_followed(void **state) {
    (void)state;
    static const char *const options[] = {
        "story.txt",           "story.txt --valid 0",  "short.txt",
        "short.txt --valid 0", "letter.txt --valid 0", "letter.txt --valid story.txt"};
    write_story("story.txt");
    write_text("short.txt", "It was a dark and stormy night.\n");
    write_text("letter.txt", "x");
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        char command[256];
        snprintf(command, sizeof command, "prepare %s --output tokens", options[i]);
        expect_run(command, 0);
        expect_advice_works();
        snprintf(command, sizeof command, "rm -r '%s/tokens' '%s/run'", folder, folder);
        assert_int_equal(system(command), 0);
    }
}

/* All is held out: there is something to evaluate on. */
static void nothing_to_train_on(void **state) {
    (void)state;
    write_text("letter.txt", "x");
    expect_run("prepare letter.txt --output tokens", 0);
    EXPECT_IN("out", "0 train tokens, 2 valid tokens", "next: polysketch eval --model RUN --data tokens\n");
}

/* What is wrong is answered with options, as they are given. */
static void messages_name_options(void **state) {
    (void)state;
    write_text("letter.txt", "x");
    write_text("bad.jsonl", "{\"body\": \"x\"}\n");
    write_text("wiki.txt", " = Title = \n");
    char command[256];
    snprintf(command, sizeof command, "cd '%s' && head -c 40000000 /dev/zero >> wiki.txt", folder);
    assert_int_equal(system(command), 0);
    expect_run("prepare bad.jsonl --output tokens", 1);
    EXPECT_IN("err", "--field NAME");
    expect_run("prepare wiki.txt --output tokens", 1);
    EXPECT_IN("err", "--format text");
    snprintf(command, sizeof command, "cd '%s' && echo text | '%s' prepare - --output tokens 2>err", folder,
             PSK_PROGRAM);
    const int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 2);
    EXPECT_IN("err", "--valid 0", "--valid PATH", "--split hash");
    expect_run_with_input("letter.txt", "prepare - --output tokens --split hash", 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(advice_can_be_followed), TEST(nothing_to_train_on),
                                       TEST(messages_name_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
