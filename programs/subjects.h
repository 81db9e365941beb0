/* Commands that have commands of their own: `bench matmul`, `tokenizer encode`. */
#ifndef SUBJECTS_H
#define SUBJECTS_H

#include "command.h"

#include <stddef.h>

typedef struct subject {
    const char *name;
    exit_code (*run)(int argc, char **argv); /* argv[0] is the subject's own name */
    const char *summary;
} subject;

/* Runs the subject that argv[1] names. With --help all that there is, and the help of each. `summary`: a line about the
 * command. */
exit_code run_subject(const char *command, const char *summary, const subject *subjects, size_t count, int argc,
                      char **argv);

#endif
