/* Options: each command has tables of what it takes; one reader serves command line and config file, and the help is
 * made from the same tables. Types and ranges are checked in full, an unknown name is answered with the nearest known
 * one. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "command.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum option_type {
    OPTION_COUNT,   /* int64_t; k = 1000, M, G */
    OPTION_LENGTH,  /* int64_t; k = 1024, M, G: as is customary for contexts */
    OPTION_SEED,    /* uint64_t */
    OPTION_REAL,    /* double */
    OPTION_TEXT,    /* const char * */
    OPTION_PICTURE, /* const char *: a name that ends in .png */
    OPTION_FLAG,    /* int: 0 or 1; -1 until it is named, where that differs from 0 */
    OPTION_CHOICE,  /* int: index into names */
    OPTION_LENGTHS, /* option_list of lengths, separated by commas */
    OPTION_CHOICES, /* option_list of indices into names, separated by commas; "all" */
    OPTION_TEXTS    /* text_list: the option may be given several times; in a file a string or a list of them */
} option_type;

#define OPTION_LIST_CAPACITY 64

typedef struct option_list {
    int64_t values[OPTION_LIST_CAPACITY];
    int count;
} option_list;

typedef struct text_list {
    const char *values[OPTION_LIST_CAPACITY];
    int count;
    bool from_file; /* so far: what the command line gives replaces it */
} text_list;

typedef struct command_option {
    const char *name; /* without the dashes */
    option_type type;
    const char *unit; /* stands for the value in the help; NULL: by type */
    const char *help;
    void *target;             /* holds the default before reading */
    double low, high;         /* COUNT, LENGTH, REAL, LENGTHS: both ends allowed */
    const char *const *names; /* CHOICE, CHOICES: ends with NULL */
    const char *fallback;     /* shown as the default in place of the target's value; "": none is shown */
    bool required;
} command_option;

typedef struct option_group {
    const char *title;
    const command_option *options;
    size_t count;
} option_group;

#define OPTION_GROUP(title, table) ((option_group){title, table, sizeof(table) / sizeof(table)[0]})

typedef struct command_usage {
    const char *command;  /* "train", "bench attention" */
    const char *synopsis; /* what follows the command's name: "--data DIR --output RUN [options]" */
    const char *summary;  /* one or more lines, no line end at the last */
    const char *examples; /* lines that work, or NULL */
    const option_group *groups;
    size_t group_count;
    const char *operand;                /* name of the operands in messages, NULL: takes none */
    size_t operand_least, operand_most; /* how many */
} command_usage;

/* What was read. The strings that options point to live as long as argv and this. */
typedef struct command_line {
    const char **operands;
    size_t operand_count;
    void *config; /* the files of --config */
} command_line;

/* Reads argv[1 ...] into the options' targets: first the files of --config, then the command line. False: the command
 * is over with *code (the help was printed, or what is wrong was said). options_free in either case. */
bool options_read(const command_usage *usage, int argc, char **argv, command_line *line, exit_code *code);
void options_free(command_line *line);

/* The entry of `names` (ends with NULL) nearest to `word`, or NULL if none is near. */
const char *nearest_name(const char *word, const char *const *names);

#endif
