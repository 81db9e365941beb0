/* One completion request on its way through the server: what the engine writes, piece by piece, and a connection's
 * thread reads. Both hold a reference; either may let go first. */
#ifndef SERVE_JOB_H
#define SERVE_JOB_H

#include "serve_states.h"

#include <pthread.h>
#include <stdatomic.h>

/* A token with its log-probability, for replies that want it. */
typedef struct serve_token {
    int32_t token;
    float logprob;  /* NaN: nothing came before it */
    int64_t offset; /* characters of the text before it */
} serve_token;

typedef struct serve_top {
    int32_t token;
    float logprob;
} serve_top;

/* count tokens and, row by row, the `top` likeliest ones in the place of each. */
typedef struct serve_tokens {
    serve_token *tokens; /* count */
    serve_top *tops;     /* count x top; the rows of tokens with logprob NaN mean nothing */
    int64_t count, capacity, top;
} serve_tokens;

/* Appends one token with its row of tops, whose values are the caller's to fill in; NULL without memory. */
serve_token *serve_tokens_append(serve_tokens *list, serve_top **tops);
/* Moves the first `count` tokens of `list` to the end of `out`, which has the same `top`. False without memory. */
bool serve_tokens_move(serve_tokens *list, int64_t count, serve_tokens *out);
void serve_tokens_free(serve_tokens *list);

/* A part of one completion. */
typedef struct serve_piece {
    struct serve_piece *next;
    int64_t choice; /* prompt * n + number of the completion */
    char *text;     /* size bytes, UTF-8 */
    size_t size;
    serve_tokens tokens;                   /* if log-probabilities were asked for */
    const char *finish;                    /* "stop", "length": this is the last piece of the choice; NULL */
    serve_bytes state;                     /* with `finish`, if asked for: by psk_session_pack */
    int64_t session_tokens, session_bytes; /* with `finish`: what the session holds, and the size of its state */
} serve_piece;

/* text is copied; NULL without memory. */
serve_piece *serve_piece_create(int64_t choice, const char *text, size_t size);
void serve_piece_free(serve_piece *piece);

typedef struct serve_usage {
    int64_t prompt_tokens, cached_tokens, completion_tokens;
} serve_usage;

typedef struct serve_job {
    serve_request request;      /* every prompt as tokens */
    serve_state *state;         /* the stored one that the request names, held; NULL */
    double submitted, deadline; /* seconds_now() */

    _Atomic int references;
    atomic_bool cancelled; /* nobody waits for it any more */
    pthread_mutex_t lock;  /* for what follows */
    pthread_cond_t changed;
    serve_piece *first, *last; /* not read yet */
    int64_t pending_bytes;     /* of these */
    bool ended;
    serve_error error; /* why it ended, if it failed */
    serve_usage usage;
    double started, first_text; /* seconds_now(), 0: not yet */

    /* the engine's own */
    struct serve_job *next;
    int64_t next_prompt; /* the first that has not been begun */
    int64_t open;        /* completions that are not finished */
} serve_job;

/* Takes the request over (also on failure, NULL without memory). References: 1. */
serve_job *serve_job_create(serve_request *request);
void serve_job_hold(serve_job *job);
void serve_job_release(serve_job *job);

/* Engine: hands over a piece, takes it over. */
void serve_job_put(serve_job *job, serve_piece *piece);
/* Engine: so much is unread that the client had better read first. */
bool serve_job_is_full(serve_job *job);
/* Engine: the end; error NULL or without http: all went well. */
void serve_job_end(serve_job *job, const serve_error *error);

/* Connection: all pieces that are there, waiting up to `seconds` for the first; NULL: none came, and *ended says
 * whether none will. The caller frees them. */
serve_piece *serve_job_take(serve_job *job, double seconds, bool *ended);

#endif
