/* For tests that run the program polysketch in a folder of their own. */
#ifndef PSK_TESTS_PROGRAM_SUPPORT_H
#define PSK_TESTS_PROGRAM_SUPPORT_H

#include "support.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define FILE_LIMIT (16 << 20)

static char *folder; /* where everything runs */

static inline char *read_text(const char *name) {
    char path[600], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    PSK_TEST_OK(psk_read_file(path, FILE_LIMIT, &text, &size));
    return text;
}

static inline void write_text(const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    PSK_TEST_OK(psk_write_file(path, text, strlen(text)));
}

/* Runs `polysketch <arguments>` in the folder, arguments as a shell reads them; stdin comes from a file, stdout and
 * stderr go to the files out and err. Returns the exit code. */
static inline int run_with_input(const char *input, const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >out 2>err <'%s'", folder, PSK_PROGRAM, arguments, input);
    const int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline void expect_run_with_input(const char *input, const char *arguments, int code) {
    const int got = run_with_input(input, arguments);
    if (got == code)
        return;
    char *const err = read_text("err");
    print_error("polysketch %s\nexit code %d instead of %d: %s\n", arguments, got, code, err);
    psk_free(err);
    fail();
}

static inline void expect_run(const char *arguments, int code) {
    expect_run_with_input("/dev/null", arguments, code);
}

/* The file holds each of the texts. */
static inline void expect_in(const char *name, const char *const *parts) {
    char *const text = read_text(name);
    for (; *parts; parts++)
        if (!strstr(text, *parts)) {
            print_error("\"%s\" is missing in %s:\n%s\n", *parts, name, text);
            fail();
        }
    psk_free(text);
}
#define EXPECT_IN(name, ...) expect_in(name, (const char *const[]){__VA_ARGS__, NULL})

static inline json_t *read_json(const char *name) {
    char path[600];
    json_t *object;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    PSK_TEST_OK(psk_json_load(path, &object));
    return object;
}

/* Every line of a file as an object; the caller releases the array. */
static inline json_t *read_json_lines(const char *name) {
    char *const text = read_text(name), *rest = NULL;
    json_t *const lines = json_array();
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *object;
        PSK_TEST_OK(psk_json_parse(line, strlen(line), name, &object));
        assert_int_equal(json_array_append_new(lines, object), 0);
    }
    psk_free(text);
    return lines;
}

/* Text of a few sentences again and again: quick to learn. */
static inline void write_story(const char *name) {
    char text[8000] = "";
    static const char *const parts[] = {"The caf\xC3\xA9 was full. ", "It rained. ", "She read the letter twice. ",
                                        "Nobody came.\n"};
    for (int i = 0; strlen(text) + 64 < sizeof text; i++)
        strcat(text, parts[i * i % 4 == 0 ? i % 3 : (i + 1) % 4]);
    write_text(name, text);
}

#endif
