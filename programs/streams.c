#include "streams.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is opened for a closed one cannot be used in the direction of its number. */
void streams_begin(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static bool output_is_lent;

void streams_lend_output(void) {
    output_is_lent = true;
}

/* A command that failed has said why. The reason is known of what was still in the buffer. */
exit_code streams_end(exit_code code) {
    errno = 0;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || code != EXIT_DONE || output_is_lent)
        return code;
    fprintf(stderr, "polysketch: cannot write to standard output%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
    return EXIT_FAILED;
}

/* NULL with errno set. */
static char *read_all(FILE *file, size_t *size) {
    size_t capacity = 0;
    char *text = NULL;
    *size = 0;
    do {
        if (*size == capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *const larger = realloc(text, capacity);
            if (!larger) {
                free(text);
                errno = ENOMEM;
                return NULL;
            }
            text = larger;
        }
        *size += fread(text + *size, 1, capacity - *size, file);
    } while (*size == capacity);
    if (!ferror(file))
        return text;
    free(text);
    return NULL;
}

char *read_stream(const char *command, const char *path, size_t *size) {
    const int is_input = strcmp(path, "-") == 0;
    FILE *const file = is_input ? stdin : fopen(path, "rb");
    char *const text = file ? read_all(file, size) : NULL;
    if (!text)
        say_error(command, "cannot read %s: %s", is_input ? "standard input" : path, strerror(errno));
    if (file && !is_input)
        fclose(file);
    return text;
}
