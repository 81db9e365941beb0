#include "subjects.h"

#include <stdio.h>
#include <string.h>

static exit_code print_help(const char *command, const char *summary, const subject *subjects, size_t count) {
    static char help[] = "--help";
    printf("usage: polysketch %s SUBJECT [options]\n\n%s Subjects:\n", command, summary);
    for (size_t i = 0; i < count; i++)
        printf("  %-10s %s\n", subjects[i].name, subjects[i].summary);
    for (size_t i = 0; i < count; i++) {
        char *arguments[] = {help, help, NULL};
        printf("\n-------------------------------------------------------------------------------- %s %s\n", command,
               subjects[i].name);
        subjects[i].run(2, arguments);
    }
    return EXIT_DONE;
}

exit_code run_subject(const char *command, const char *summary, const subject *subjects, size_t count, int argc,
                      char **argv) {
    const char *const name = argc > 1 ? argv[1] : NULL;
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0))
        return print_help(command, summary, subjects, count);
    for (size_t i = 0; name && i < count; i++)
        if (strcmp(name, subjects[i].name) == 0)
            return subjects[i].run(argc - 1, argv + 1);
    fprintf(stderr, "polysketch %s: %s%s%s; there are", command, name ? "no subject '" : "a subject is missing",
            name ? name : "", name ? "'" : "");
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "%s %s", i ? "," : "", subjects[i].name);
    fprintf(stderr, "\n'polysketch %s --help' tells what there is\n", command);
    return EXIT_USAGE;
}
