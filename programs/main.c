/* polysketch: the program. A table of commands. */
#include "command.h"
#include "options.h"
#include "streams.h"

#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name;
    exit_code (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command commands[] = {
#define COMMAND(name, summary) {#name, command_##name, summary},
    COMMANDS(COMMAND)
#undef COMMAND
};

static const char *const command_names[] = {
#define COMMAND(name, summary) #name,
    COMMANDS(COMMAND)
#undef COMMAND
        NULL};

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_help(FILE *stream) {
    fprintf(stream,
            "polysketch %s: language models whose attention costs the same per token at any context length\n\n"
            "usage: polysketch COMMAND [options]\n\n",
            psk_version());
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(stream, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(stream, "\n"
                    "  polysketch COMMAND --help   its options, with examples\n"
                    "  polysketch --version\n\n"
                    "From a text of your own to a model that writes:\n"
                    "  polysketch prepare book.txt --output tokens\n"
                    "  polysketch train --data tokens --output run --preset tiny --seconds 120\n"
                    "  polysketch eval --model run --data tokens\n"
                    "  polysketch generate --model run --prompt 'It was'\n\n"
                    "Exit codes: 0 done, 1 failed or stopped, also where output was lost, 2 wrong usage.\n");
}

static exit_code run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0) {
        printf("polysketch %s\n", psk_version());
        return EXIT_DONE;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);

    const char *near = nearest_name(name, command_names);
    fprintf(stderr, "polysketch: no command '%s'%s%s%s; 'polysketch --help' lists them\n", name,
            near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    return EXIT_USAGE;
}

int main(int argc, char **argv) {
    streams_begin();
    return streams_end(run(argc, argv));
}
