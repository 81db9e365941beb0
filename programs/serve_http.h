/* HTTP: routes, limits, errors, streams, the access log. Every connection has a thread, which waits for the engine. */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include "serve_engine.h"

#include <stdio.h>

typedef struct serve_http serve_http;

typedef struct serve_http_options {
    psk_model *model; /* its config only: the weights are the engine's */
    const psk_tokenizer *tokenizer;
    serve_engine *engine;
    serve_states *states;
    serve_metrics *metrics;
    serve_limits limits;
    const char *name; /* of the model */
    const char *host;
    int64_t port;            /* 0: any that is free */
    const char *api_key;     /* NULL: none is asked for */
    const char *cors_origin; /* NULL: pages from elsewhere are refused */
    int64_t body_bytes;      /* of a request */
    int64_t connections;
    double request_seconds; /* time of a completion request, queue and all */
    double idle_seconds;    /* a connection on which nothing moves is closed */
    FILE *log;              /* a JSON line for each request; NULL: none */
} serve_http_options;

/* Listens; NULL with an error said. *port: which one. */
serve_http *serve_http_create(const serve_http_options *options, int *port);
/* No more connections are accepted; those that are there go on. */
void serve_http_quiesce(serve_http *http);
/* Waits some seconds for answers that are on their way, then closes all connections. Accepts NULL. */
void serve_http_free(serve_http *http);

#endif
