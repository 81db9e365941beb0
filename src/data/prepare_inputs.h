/* The inputs of a preparation as a list of files in order. */
#ifndef PSK_PREPARE_INPUTS_H
#define PSK_PREPARE_INPUTS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct psk_input {
    char *path;     /* "-": standard input */
    int64_t bytes;  /* on the disk; -1: a pipe */
    bool held_out;  /* of valid_inputs */
    bool in_folder; /* found in a folder, not named */
} psk_input;

typedef struct psk_input_list {
    psk_input *files;
    int64_t count, capacity;
    int64_t bytes; /* of all; 0 if one is a pipe */
    bool pipe;
} psk_input_list;

/* Errors: ARGUMENT, FILE, FORMAT (an empty file that was named) naming the input. *out is to be released either way. */
psk_status psk_input_list_make(const psk_prepare_options *options, psk_input_list *out);
void psk_input_list_free(psk_input_list *list);

/* Its path, for people: "standard input" for "-". */
const char *psk_input_name(const psk_input *input);

/* What a named format or PSK_FORMAT_AUTO makes of a name: JSONL, or AUTO for "look at the contents". */
psk_text_format psk_format_of_name(const char *path, psk_text_format format);

/* A hash of the names and sizes of the first `count` files. */
uint64_t psk_input_list_hash(const psk_input_list *list, int64_t count);

#endif
