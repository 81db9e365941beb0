/* configs/: every file is read, every combination of the paper's settings is planned, and a step has 2^20 tokens. */
#include "support.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define CONFIGS      PSK_GOLDEN_DIR "/../../configs"
#define BATCH_TOKENS (INT64_C(1) << 20)

static char **names;
static int64_t name_count;

static bool begins(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_json(const char *name) {
    const size_t size = strlen(name);
    return size > 5 && strcmp(name + size - 5, ".json") == 0;
}

/* The files for models, contexts and attention, told apart by their names. */
typedef enum { OF_MODEL, OF_CONTEXT, OF_CPU, OF_TRAINING, OF_ATTENTION } config_kind;

static config_kind kind_of(const char *name) {
    return begins(name, "gpt2-")             ? OF_MODEL
           : begins(name, "context-")        ? OF_CONTEXT
           : begins(name, "cpu-")            ? OF_CPU
           : strcmp(name, "paper.json") == 0 ? OF_TRAINING
                                             : OF_ATTENTION;
}

/* The last line of `polysketch train --dry-run` with the files, from its first number on; fails where it fails. */
static void plan(const char *const *files, size_t count, char *line, size_t size) {
    char command[4096];
    int used = snprintf(command, sizeof command, "'%s' train --dry-run", PSK_PROGRAM);
    for (size_t i = 0; i < count; i++)
        used += snprintf(command + used, sizeof command - (size_t)used, " --config '" CONFIGS "/%s'", files[i]);
    FILE *const out = popen(command, "r");
    assert_non_null(out);
    line[0] = '\0';
    while (fgets(line, (int)size, out))
        ;
    const int status = pclose(out);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !strstr(line, "in all"))
        fail_msg("%s\ngave %s", command, line);
}

static void test_paper(void **state) {
    (void)state;
    int64_t planned = 0;
    char line[256];
    for (int64_t m = 0; m < name_count; m++)
        for (int64_t c = 0; c < name_count; c++)
            for (int64_t a = 0; a < name_count; a++) {
                if (!is_json(names[m]) || kind_of(names[m]) != OF_MODEL || kind_of(names[c]) != OF_CONTEXT ||
                    !is_json(names[a]) || kind_of(names[a]) != OF_ATTENTION)
                    continue;
                const char *const files[] = {"paper.json", names[m], names[c], names[a]};
                plan(files, 4, line, sizeof line);
                planned++;
            }
    assert_int_equal(planned, 3 * 7 * 11); /* sizes, contexts, forms of attention */
}

static void test_cpu(void **state) {
    (void)state;
    char line[256];
    int64_t planned = 0;
    for (int64_t i = 0; i < name_count; i++)
        if (kind_of(names[i]) == OF_CPU) {
            plan((const char *const *)&names[i], 1, line, sizeof line);
            planned++;
        }
    assert_true(planned >= 4);
}

/* A number, or text as the program reads lengths: 32k. */
static int64_t length_of(const json_t *value) {
    char *end;
    if (json_is_integer(value))
        return json_integer_value(value);
    assert_true(json_is_string(value));
    const int64_t number = strtoll(json_string_value(value), &end, 10);
    assert_string_equal(end, "k");
    return number * 1024;
}

static void test_batch_tokens(void **state) {
    (void)state;
    for (int64_t i = 0; i < name_count; i++) {
        char path[512];
        json_t *config;
        if (kind_of(names[i]) != OF_CONTEXT)
            continue;
        snprintf(path, sizeof path, CONFIGS "/%s", names[i]);
        PSK_TEST_OK(psk_json_load(path, &config));
        const int64_t tokens = length_of(json_object_get(config, "context")) *
                               length_of(json_object_get(config, "batch-size")) *
                               length_of(json_object_get(config, "accumulate"));
        if (tokens != BATCH_TOKENS)
            fail_msg("%s: a step has %lld tokens", names[i], (long long)tokens);
        json_decref(config);
    }
}

static int set_up(void **state) {
    (void)state;
    PSK_TEST_OK(psk_list_folder(CONFIGS, &names, &name_count));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_free_names(names, name_count);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paper),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_batch_tokens),
    };
    return cmocka_run_group_tests_name("configs", tests, set_up, tear_down);
}
