/* What the parts of `polysketch generate` share: what was asked for, and a model that reads and writes. */
#ifndef GENERATE_H
#define GENERATE_H

#include "model_options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct sampling_options {
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, penalty_window;
    uint64_t seed;
    text_list biases; /* TOKEN:X */
} sampling_options;

sampling_options sampling_options_default(void); /* those of psk_sampling_default */

#define SAMPLING_OPTION_CAPACITY 10
option_group sampling_option_group(sampling_options *options, command_option table[SAMPLING_OPTION_CAPACITY]);

/* As the library takes it; biases has room for OPTION_LIST_CAPACITY and must outlive *sampling. False: what is wrong
 * was said. */
bool sampling_options_take(const sampling_options *options, psk_logit_bias *biases, psk_sampling *sampling);

typedef struct generate_settings {
    const char *model, *prompt, *prompt_file, *state_in, *state_out, *logprobs;
    const char *line_prefix, *line_suffix; /* of --interactive */
    int64_t max_tokens;
    int echo, interactive;
    text_list stops;
    sampling_options sampling;
    device_options device;
} generate_settings;

/* The prompt's bytes, to be freed; "" in interactive use without one. NULL with an error said. */
char *read_prompt(const generate_settings *settings, size_t *size);

/* A model and one sequence. */
typedef struct generation {
    const generate_settings *settings;
    psk_device *device;
    psk_model *model;
    psk_tokenizer *tokenizer;
    psk_session *session;
    psk_text_stream *stream; /* of what is written */
    psk_sampling sampling;
    psk_logit_bias biases[OPTION_LIST_CAPACITY];
    int64_t V;
    float *logits;    /* V, of the token after the last */
    bool has_logits;  /* not yet, or not after a state was loaded */
    FILE *logprobs;   /* of --logprobs, or NULL */
    int32_t *history; /* the tokens of the sequence that went through this process, for the penalties */
    int64_t history_count, history_capacity;
    int64_t drawn;                /* tokens chosen in all: the index of the next in the seed's stream */
    int64_t read_tokens, written; /* of the last call of generation_read, generation_write */
    double read_seconds, seconds; /* of the same */
    bool terminal;                /* standard output is one */
} generation;

/* Loads model, tokenizer and state, and makes the rest. False with the error said and *code set. generation_close in
 * either case. */
bool generation_open(generation *g, const generate_settings *settings, exit_code *code);
void generation_close(generation *g);

/* Those below say what went wrong, and return EXIT_DONE also where Ctrl-C ended them early: ask stop_requested. */

/* Reads text in pieces, with a line of progress where it takes long. */
exit_code generation_read(generation *g, const char *text, size_t size);

/* Reads end-of-text: what stands before every document. */
exit_code generation_read_end_of_text(generation *g);

/* Writes up to max_tokens tokens to standard output as they come, ending earlier at end-of-text or a stop string, then
 * a line end. Needs has_logits. With `keep` the last token is read too, so that the state has all. */
exit_code generation_write(generation *g, bool keep);

/* Text to standard output: bytes that are not UTF-8 as U+FFFD; on a terminal without what that would obey. */
exit_code generation_show(generation *g, const char *text, size_t size);

/* Another session in place of this one: loaded from a file, or back to no tokens. On error nothing has changed. */
exit_code generation_load_state(generation *g, const char *path);
void generation_reset(generation *g);

/* Lines on stderr: length and bytes of the state; the same behind the speed of the last read and write. */
void generation_say_state(const generation *g);
void generation_say_speed(const generation *g);

/* The dialogue of --interactive. */
exit_code generation_talk(generation *g);

#endif
