/* The thread that owns the model: it takes requests from a queue, reads their prompts cut by cut, and between the cuts
 * steps all running completions together by one token (continuous batching). Any thread may call these functions. */
#ifndef SERVE_ENGINE_H
#define SERVE_ENGINE_H

#include "serve_job.h"
#include "serve_metrics.h"

typedef struct serve_engine serve_engine;

typedef struct serve_engine_options {
    psk_model *model;               /* the engine's alone while it lives */
    const psk_tokenizer *tokenizer; /* must outlive it */
    serve_metrics *metrics;
    int64_t sessions;    /* completions at once */
    int64_t queue;       /* requests that may wait */
    int64_t cache_bytes; /* for the prefix cache */
} serve_engine_options;

/* Starts the thread; NULL with an error. */
serve_engine *serve_engine_create(const serve_engine_options *options, serve_error *error);
/* Ends what still runs with an error (503), and the thread. What is submitted from now on is refused. */
void serve_engine_stop(serve_engine *engine);
void serve_engine_free(serve_engine *engine); /* stops it first; accepts NULL */

/* Queues the job and holds it until it has ended. False with an error: the queue is full (429), or closed (503). */
bool serve_engine_submit(serve_engine *engine, serve_job *job, serve_error *error);

/* Whether these bytes are a state of this model; *tokens: how long a text it has seen. Waits for the thread. */
bool serve_engine_check_state(serve_engine *engine, const serve_bytes *bytes, int64_t *tokens, serve_error *error);

/* From now on no job is taken; true when the last one has ended. */
bool serve_engine_drain(serve_engine *engine);

#endif
