#include "generate.h"

#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *read_stream(FILE *file, size_t *size) {
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

static char *copy_text(const char *text, size_t *size) {
    *size = strlen(text);
    char *const copy = strdup(text);
    if (!copy)
        say_error("generate", "out of memory");
    return copy;
}

char *read_prompt(const generate_settings *settings, size_t *size) {
    const char *const path = settings->prompt_file;
    if (settings->prompt || (settings->interactive && !path))
        return copy_text(settings->prompt ? settings->prompt : "", size);
    const bool is_file = path && strcmp(path, "-") != 0;
    FILE *const file = is_file ? fopen(path, "rb") : stdin;
    if (!is_file && isatty(STDIN_FILENO))
        fprintf(stderr, "type a prompt, then Ctrl-D on a line of its own (or give --prompt TEXT, or --interactive)\n");
    char *const text = file ? read_stream(file, size) : NULL;
    if (!text)
        say_error("generate", "cannot read %s: %s", is_file ? path : "standard input", strerror(errno));
    if (is_file && file)
        fclose(file);
    return text;
}
