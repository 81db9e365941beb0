#include "generate.h"

#include "streams.h"
#include "terminal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *copy_text(const char *text, size_t *size) {
    *size = strlen(text);
    char *const copy = strdup(text);
    if (!copy)
        say_error("generate", "out of memory");
    return copy;
}

char *read_prompt(const generate_settings *settings, size_t *size) {
    const char *const path = settings->prompt_file ? settings->prompt_file : "-";
    if (settings->prompt || (settings->interactive && !settings->prompt_file))
        return copy_text(settings->prompt ? settings->prompt : "", size);
    if (strcmp(path, "-") == 0 && isatty(STDIN_FILENO))
        fprintf(stderr, "type a prompt, then Ctrl-D on a line of its own (or give --prompt TEXT, or --interactive)\n");
    return read_stream("generate", path, size);
}
