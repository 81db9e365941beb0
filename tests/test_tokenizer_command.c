/* polysketch tokenizer, as a user calls it. */
#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEED 5

static int set_up(void **state) {
    return psk_test_place_enter(state, "out");
}

/* The command's exit code; what it prints is in place->path, what it complains of in `err` beside it. */
static int run(const psk_test_place *place, const char *arguments) {
    char line[2048];
    snprintf(line, sizeof line, "cd '%s' && '%s' tokenizer %s > out 2> err", place->folder, PSK_PROGRAM, arguments);
    const int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *read_text(const psk_test_place *place, const char *name) {
    char path[512], *content;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", place->folder, name);
    PSK_TEST_OK(psk_read_file(path, 1 << 20, &content, &size));
    return content;
}

static void expect(const psk_test_place *place, const char *name, const char *text) {
    char *const content = read_text(place, name);
    if (!strstr(content, text))
        fail_msg("'%s' is not in: %s", text, content);
    psk_free(content);
}

static void write_text(const psk_test_place *place, const char *name, const char *text, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", place->folder, name);
    PSK_TEST_OK(psk_write_file(path, text, size));
}

static void encode_and_decode(void **state) {
    const psk_test_place *place = *state;
    static const char text[] = "A\0\xFF\n";
    write_text(place, "text", text, sizeof text - 1);
    assert_int_equal(run(place, "encode --tokenizer bytes text"), 0);
    expect(place, "out", "65 0 255 10\n");
    assert_int_equal(run(place, "encode --tokenizer bytes < text"), 0);
    expect(place, "out", "65 0 255 10\n");
    assert_int_equal(run(place, "encode --tokenizer bytes --text Ab"), 0);
    expect(place, "out", "65 98\n");
    assert_int_equal(run(place, "encode --tokenizer bytes text --time"), 0);
    expect(place, "out", "4 bytes, 4 tokens");
    assert_int_equal(run(place, "encode --tokenizer bytes text | '" PSK_PROGRAM "' tokenizer decode --tokenizer bytes"),
                     0);
    assert_int_equal(run(place, "decode --tokenizer bytes 72 105"), 0);
    expect(place, "out", "Hi");
    write_text(place, "numbers", "[65, 66,\n 67]", 13);
    assert_int_equal(run(place, "decode --tokenizer bytes < numbers"), 0);
    expect(place, "out", "ABC");
}

static void info(void **state) {
    const psk_test_place *place = *state;
    assert_int_equal(run(place, "info bytes"), 0);
    expect(place, "out", "vocab_size    257\n");
    assert_int_equal(run(place, "info bytes --list"), 0);
    expect(place, "out", "65 \"A\"\n");
    expect(place, "out", "10 \"\\n\"\n");
    expect(place, "out", "255 \"\\xFF\"\n");
}

static void wrong_usage(void **state) {
    const psk_test_place *place = *state;
    assert_int_equal(run(place, ""), 2);
    expect(place, "err", "there are info, encode, decode, train");
    assert_int_equal(run(place, "encode --text a"), 2);
    expect(place, "err", "--tokenizer");
    assert_int_equal(run(place, "encode --tokenizer gpt9 --text a"), 2);
    expect(place, "err", "gpt9");
    assert_int_equal(run(place, "encode --tokenizer bytes nothing"), 1);
    expect(place, "err", "cannot read nothing");
    assert_int_equal(run(place, "decode --tokenizer bytes 3x"), 2);
    expect(place, "err", "'x' is no token");
    assert_int_equal(run(place, "decode --tokenizer bytes 300"), 2);
    expect(place, "err", "token 300 is outside");
    assert_int_equal(run(place, "--help"), 0);
    expect(place, "out", "tokenizer train");
}

static void train(void **state) {
    const psk_test_place *place = *state;
    static const char text[] = "the other day the other man came the other way\n";
    if (!PSK_WITH_SENTENCEPIECE)
        skip();
    write_text(place, "text", text, sizeof text - 1);
    assert_int_equal(run(place, "train text --vocab-size 280 --output made"), 0);
    expect(place, "out", "280 tokens, in made");
    assert_int_equal(run(place, "encode --tokenizer made --text 'the other man'"), 0);
    assert_int_equal(run(place, "train text --vocab-size 9000 --output other"), 2);
    expect(place, "err", "vocab_size is 9000, ");
}

/* Words of random letters: making merges of them takes many seconds. */
static void write_random_words(const psk_test_place *place) {
    enum { SIZE = 2000000 };
    psk_rng rng = psk_rng_make(SEED, 0);
    char *const text = malloc(SIZE);
    assert_non_null(text);
    for (int i = 0; i < SIZE; i++)
        text[i] = i % 100 == 99 ? '\n' : i % 10 == 9 ? ' ' : (char)('a' + psk_rng_below(&rng, 26));
    write_text(place, "text", text, SIZE);
    free(text);
}

static bool is_merging(const psk_test_place *place) {
    char *const content = read_text(place, "err");
    const bool found = strstr(content, "making the merges") != NULL;
    psk_free(content);
    return found;
}

/* Ctrl-C ends the program though the library goes on; a shell gives 130 for that. */
static void interrupted_while_merging(void **state) {
    const psk_test_place *place = *state;
    const struct timespec pause = {0, 2000000};
    char line[1024];
    int status;
    if (!PSK_WITH_SENTENCEPIECE)
        skip();
    write_random_words(place);
    write_text(place, "err", "", 0);
    snprintf(line, sizeof line,
             "cd '%s' && exec '%s' tokenizer train text --vocab-size 100000 --output made >out 2>err", place->folder,
             PSK_PROGRAM);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    while (!is_merging(place) && waitpid(child, &status, WNOHANG) == 0)
        nanosleep(&pause, NULL);
    kill(child, SIGINT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
    snprintf(line, sizeof line, "%s/made", place->folder);
    assert_false(psk_is_folder(line));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, psk_test_place_leave)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(encode_and_decode), TEST(info), TEST(wrong_usage), TEST(train),
                                       TEST(interrupted_while_merging)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
