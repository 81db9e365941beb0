/* polysketch bench: a table of its subjects. */
#include "options.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    exit_code (*run)(int argc, char **argv);
    const char *summary;
} subjects[] = {
    {"matmul", bench_matmul, "rate of matrix products"},
    {"attention", bench_attention, "time per token against context, by mechanism"},
    {"step", bench_step, "a whole training step"},
    {"decode", bench_decode, "time per token of generation against context"},
};
#define SUBJECT_COUNT (sizeof subjects / sizeof subjects[0])

/* What there is, then the help of each subject. */
static exit_code print_help(void) {
    static char help[] = "--help";
    printf("usage: polysketch bench SUBJECT [options]\n\nSpeed of this machine. Subjects:\n");
    for (size_t i = 0; i < SUBJECT_COUNT; i++)
        printf("  %-10s %s\n", subjects[i].name, subjects[i].summary);
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        char *arguments[] = {help, help, NULL};
        printf("\n-------------------------------------------------------------------------------- bench %s\n",
               subjects[i].name);
        subjects[i].run(2, arguments);
    }
    return EXIT_DONE;
}

exit_code command_bench(int argc, char **argv) {
    const char *const name = argc > 1 ? argv[1] : NULL;
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0))
        return print_help();
    for (size_t i = 0; name && i < SUBJECT_COUNT; i++)
        if (strcmp(name, subjects[i].name) == 0)
            return subjects[i].run(argc - 1, argv + 1);
    fprintf(stderr, "polysketch bench: %s%s%s; there are", name ? "no subject '" : "a subject is missing",
            name ? name : "", name ? "'" : "");
    for (size_t i = 0; i < SUBJECT_COUNT; i++)
        fprintf(stderr, "%s %s", i ? "," : "", subjects[i].name);
    fprintf(stderr, "\n'polysketch bench --help' tells what there is\n");
    return EXIT_USAGE;
}
