/* What the engine computed, as JSON in the shapes of OpenAI's completions. */
#ifndef SERVE_REPLY_H
#define SERVE_REPLY_H

#include "serve_job.h"

/* What stands in every reply to one request. */
typedef struct serve_reply {
    const serve_job *job;
    const psk_tokenizer *tokenizer;
    const char *id, *model;
    int64_t created; /* seconds since 1970 */
} serve_reply;

/* One completion, put together from its pieces. */
typedef struct serve_choice {
    char *text; /* size bytes */
    size_t size, capacity;
    serve_tokens tokens;
    const char *finish;
    serve_bytes state;
    int64_t session_tokens, session_bytes;
} serve_choice;

bool serve_choice_add_text(serve_choice *choice, const char *text, size_t size); /* false without memory */

/* Moves what the piece holds into its completion; false without memory. */
bool serve_choice_add(serve_choice *choice, serve_piece *piece);
void serve_choice_free(serve_choice *choice);

/* The functions below return text to be freed, NULL without memory. */

/* The whole reply: choices: job->request.prompt_count * n. */
char *serve_reply_whole(const serve_reply *reply, const serve_choice *choices);
/* One piece as an event. */
char *serve_reply_event(const serve_reply *reply, const serve_piece *piece);
/* The end of a stream: the usage if it was asked for, then [DONE]; or the error. */
char *serve_reply_last_event(const serve_reply *reply, const serve_error *error);

/* The text of one token in lists of log-probabilities: itself if it is UTF-8 without a 0, else "bytes:\xe2\x98";
 * "<|endoftext|>" and "<|7|>" where it has none. NULL without memory. */
json_t *serve_token_json(const psk_tokenizer *tokenizer, int32_t token);
#define SERVE_END_OF_TEXT "<|endoftext|>"

#endif
