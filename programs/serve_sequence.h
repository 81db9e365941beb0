/* One completion being computed: its session, its tokens, and the text that comes of them. Belongs to the engine's
 * thread.
 *
 * The n completions of a prompt are a chain: the first one reads the prompt, then the others take copies of its
 * session. The last token of a prompt is not read but stepped, together with everything else that is being written. */
#ifndef SERVE_SEQUENCE_H
#define SERVE_SEQUENCE_H

#include "serve_cache.h"
#include "serve_job.h"

/* What all sequences use. */
typedef struct serve_context {
    psk_model *model;
    const psk_tokenizer *tokenizer;
    serve_cache *cache;
} serve_context;

typedef struct serve_sequence {
    serve_job *job;
    int64_t choice;                  /* number of its pieces */
    struct serve_sequence *follower; /* the next completion of the same prompt, while it waits for a session */
    psk_session *session;            /* NULL: waits for that of the one before it */
    serve_node *node;                /* where the session stands in the cache; NULL: nowhere */
    int32_t *tokens;                 /* prompt, then completion */
    int64_t count, capacity, prompt_count;
    int64_t read;           /* how many of the tokens the session has seen */
    psk_sampling sampling;  /* with the seed of this completion */
    psk_text_stream *text;  /* the completion as the client sees it: ends before a stop string */
    psk_text_stream *plain; /* echo, and the places of tokens: never ends. NULL: needed for neither */
    int64_t shown, placed;  /* characters that have come out of the one and the other, after the echo */
    serve_tokens held;      /* tokens whose characters are not shown yet */
    bool finished;
    bool stopped; /* by a stop string: tokens behind it are not shown */
} serve_sequence;

/* The n completions of one prompt, into all[0 ... n). False: nothing was made, and *error says why. */
bool serve_sequences_begin(const serve_context *context, serve_job *job, int64_t prompt, serve_sequence **all,
                           serve_error *error);
void serve_sequence_free(const serve_context *context, serve_sequence *sequence);

/* Has a session, and prompt to read. */
bool serve_sequence_is_reading(const serve_sequence *sequence);
/* Has a session, and wants sequence->tokens[sequence->read] stepped into it. */
bool serve_sequence_is_writing(const serve_sequence *sequence);

/* Reads one cut of the prompt; *count tokens. At the prompt's end the followers get their sessions. */
bool serve_sequence_read(const serve_context *context, serve_sequence *sequence, int64_t *count, serve_error *error);

/* logits: after the step of tokens[read]. Chooses a token, hands over the text, finishes where it is to end. */
bool serve_sequence_write(const serve_context *context, serve_sequence *sequence, const float *logits,
                          serve_error *error);

/* The last piece, with what was held back and with the state, if it was asked for. */
bool serve_sequence_finish(serve_sequence *sequence, const char *reason, serve_error *error);

#endif
