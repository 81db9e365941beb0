/* Pictures of polysketch, with a gnuplot of our own that keeps what it is told, and with the real one. */
#include "program_support.h"

#include <stdbool.h>

#define RUNS 16

/* A gnuplot that writes the beginning of a picture, as on a full disk, and is content. */
static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    char command[1024];
    snprintf(command, sizeof command,
             "cd '%s' && mkdir fake && printf '%%s\\n' '#!/bin/sh' 'cat >script' "
             "'picture=$(sed -n \"s/^set output .\\(.*\\).$/\\1/p\" script)' 'printf %%s PNG >\"$picture\"' "
             ">fake/gnuplot && chmod +x fake/gnuplot",
             folder);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < RUNS; i++) {
        char name[32];
        snprintf(name, sizeof name, "run%d.jsonl", i);
        write_text(name,
                   "{\"step\": 1, \"loss\": 3.5, \"valid_loss\": 4}\n{\"step\": 2, \"loss\": 3, \"valid_loss\": 3}\n");
    }
    write_text("untested.jsonl", "{\"step\": 1, \"loss\": 3.5, \"valid_loss\": null}\n{\"step\": 2, \"loss\": 3}\n");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

#define WITH_FAKE "--version >/dev/null; PATH=\"$PWD/fake:$PATH\" '" PSK_PROGRAM "' "

/* How each line is drawn: what stands between "with" and "title". */
static int read_styles(const char *script, char styles[2 * RUNS][128]) {
    int count = 0;
    for (const char *at = script; (at = strstr(at, " with ")) && count < 2 * RUNS; at++)
        snprintf(styles[count++], sizeof styles[0], "%.*s", (int)(strstr(at, " title ") - at), at);
    return count;
}

/* Every line of the picture looks different. */
static void test_styles(void **state) {
    (void)state;
    char arguments[2048] = WITH_FAKE "plot --output many.png";
    for (int i = 0; i < RUNS; i++)
        snprintf(arguments + strlen(arguments), sizeof arguments - strlen(arguments), " run%d.jsonl", i);
    expect_run(arguments, 1);
    char *const script = read_text("script");
    char styles[2 * RUNS][128];
    const int count = read_styles(script, styles);
    assert_int_equal(count, 2 * RUNS);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(styles[i], styles[j]);
    psk_free(script);
}

/* Nothing is told to gnuplot of a curve without points: it would warn of it, and the key would have an empty row. */
static void test_no_points(void **state) {
    (void)state;
    expect_run(WITH_FAKE "plot untested.jsonl run1.jsonl --output some.png", 1);
    EXPECT_IN("script", "untested.jsonl: training", "run1.jsonl: held out");
    char *const script = read_text("script");
    assert_null(strstr(script, "untested.jsonl: held out"));
    psk_free(script);
}

/* What gnuplot left half done is not the picture; the old one stays, and nothing beside it. */
static void test_cut_picture(void **state) {
    (void)state;
    write_text("old.png", "old");
    expect_run(WITH_FAKE "plot run1.jsonl --output old.png", 1);
    EXPECT_IN("err", "old.png was not drawn: gnuplot wrote no whole picture (is the disk full?)");
    EXPECT_IN("old.png", "old");
    char command[256];
    snprintf(command, sizeof command, "test -z \"$(find '%s' -name '*.tmp*')\"", folder);
    assert_int_equal(system(command), 0);
}

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"picture.jpg", "picture", "-", ".png", "picture.png.gz"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char arguments[128], message[128];
        snprintf(arguments, sizeof arguments, "plot run1.jsonl --output %s", names[i]);
        snprintf(message, sizeof message, "--output: '%s' does not end in .png", names[i]);
        expect_run(arguments, 2);
        EXPECT_IN("err", message);
    }
    expect_run("eval --model m --data d --plot e.jpg", 2);
    EXPECT_IN("err", "--plot: 'e.jpg' does not end in .png");
}

/* The real one draws it all without a word. */
static void test_drawn(void **state) {
    (void)state;
    if (system("command -v gnuplot >/dev/null 2>&1") != 0)
        skip();
    write_text("short.jsonl", "{\"step\": 1, \"loss\": 3.5}\n");
    static const char *const runs[] = {"untested.jsonl run1.jsonl", "short.jsonl"};
    for (size_t i = 0; i < 2; i++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments, "plot %s --output drawn.PNG", runs[i]);
        expect_run(arguments, 0);
        char *const picture = read_text("drawn.PNG"), *const err = read_text("err");
        assert_memory_equal(picture, "\x89PNG", 4);
        assert_string_equal(err, "");
        psk_free(picture);
        psk_free(err);
    }
}

/* A link stays one, and a name to which nothing can be added is a name. */
static void test_targets(void **state) {
    (void)state;
    char command[1024], arguments[512], name[256];
    if (system("command -v gnuplot >/dev/null 2>&1") != 0)
        skip();
    snprintf(command, sizeof command, "ln -s real.png '%s/link.png'", folder);
    assert_int_equal(system(command), 0);
    expect_run("plot run1.jsonl --output link.png", 0);
    snprintf(command, sizeof command, "test -L '%s/link.png' && test -s '%s/real.png'", folder, folder);
    assert_int_equal(system(command), 0);
    memset(name, 'x', 255);
    memcpy(name + 251, ".png", 5);
    snprintf(arguments, sizeof arguments, "plot run1.jsonl --output %s", name);
    expect_run(arguments, 0);
    char *const picture = read_text(name);
    assert_memory_equal(picture, "\x89PNG", 4);
    psk_free(picture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles), cmocka_unit_test(test_no_points), cmocka_unit_test(test_cut_picture),
        cmocka_unit_test(test_names),  cmocka_unit_test(test_drawn),     cmocka_unit_test(test_targets),
    };
    return cmocka_run_group_tests_name("program_plot", tests, set_up, tear_down);
}
