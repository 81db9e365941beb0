/* The body of POST /v1/completions -> a request in which every field is in its range, or the error that names the first
 * one that is not. Knows neither HTTP nor the model. */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include "serve_error.h"

/* What one request may ask for. */
typedef struct serve_limits {
    int64_t vocab_size;
    int64_t prompts;       /* in one request */
    int64_t prompt_tokens; /* in all prompts of a request together */
    int64_t max_tokens;    /* of one completion */
    int64_t choices;       /* n */
} serve_limits;

#define SERVE_TOP_LOGPROBS  20  /* largest value of "logprobs" */
#define SERVE_STOPS         16  /* stop strings */
#define SERVE_STOP_BYTES    256 /* of one stop string */
#define SERVE_BIASES        1024
#define SERVE_NAME_CAPACITY 65 /* of a state's name with its 0 */

/* Either text or tokens. */
typedef struct serve_prompt {
    char *text; /* size bytes of UTF-8; NULL: tokens */
    size_t size;
    int32_t *tokens;
    int64_t count;
} serve_prompt;

/* Bytes of a state file. */
typedef struct serve_bytes {
    void *data;
    size_t size;
} serve_bytes;

typedef struct serve_request {
    char *model; /* NULL: not said */
    serve_prompt *prompts;
    int64_t prompt_count;
    int64_t n, max_tokens;
    int64_t logprobs; /* -1: none */
    int echo, stream, include_usage;
    char **stops;
    int64_t stop_count;
    psk_sampling sampling; /* its bias points to biases */
    psk_logit_bias *biases;
    int seeded;                            /* whether sampling.seed was given */
    char state_name[SERVE_NAME_CAPACITY];  /* continue from this stored state; "": none */
    serve_bytes state;                     /* or from this one that came along; data NULL: none */
    char return_name[SERVE_NAME_CAPACITY]; /* keep the state at the end under this name; "": do not */
    int return_state;                      /* send the state at the end */
} serve_request;

/* body: `size` bytes, not 0-terminated. The caller frees the request in either case. */
bool serve_request_parse(const char *body, size_t size, const serve_limits *limits, serve_request *request,
                         serve_error *error);
void serve_request_free(serve_request *request);

/* A JSON object out of a body, or an error that says where it goes wrong; NULL then. */
json_t *serve_json_object(const char *body, size_t size, serve_error *error);

/* Letters, digits, '.', '_' and '-', at most 64 of them, not only dots. */
bool serve_name_is_good(const char *name);

/* A list of token ids, each within the vocabulary; *tokens is to be freed, also on error. Errors name `param`. */
bool serve_read_tokens(const json_t *list, int64_t vocab_size, const char *param, int32_t **tokens, int64_t *count,
                       serve_error *error);

#endif
