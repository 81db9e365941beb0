/* One HTTP request while it is answered; for the files serve_http.c, serve_admit.c, serve_routes.c and
 * serve_completions.c. */
#ifndef SERVE_CALL_H
#define SERVE_CALL_H

#include "serve_http.h"
#include "serve_reply.h"

#include <microhttpd.h>

struct serve_http {
    serve_http_options options;
    struct MHD_Daemon *daemon;
    bool loopback; /* listens to this machine only */
    double started;
    pthread_mutex_t log_lock;
    _Atomic int64_t count;   /* requests so far */
    _Atomic int64_t answers; /* on their way: the end waits for these, not for requests that are still coming */
    uint64_t instance;       /* random: makes ids of two servers different */
};

typedef struct serve_route serve_route;

typedef struct serve_call {
    serve_http *http;
    struct MHD_Connection *connection;
    const serve_route *route;
    char method[8], path[256]; /* as long as they fit: for the log */
    const char *rest;          /* of the path, behind the route's */
    char id[32];
    double started;
    serve_error error; /* found before the body was there */
    bool closes;       /* answers without the body, which ends the connection */
    char *body;        /* size bytes */
    size_t size, capacity, discarded;
    bool answered; /* counted in http->answers */
    unsigned status;
    serve_job *job; /* completions */
    serve_reply reply;
    char *event; /* what of a stream has not been sent yet: event_size bytes from event_at */
    size_t event_size, event_at;
    serve_piece *pieces;
    double waiting_since, looked; /* for the client */
    bool over;                    /* nothing more will come */
} serve_call;

struct serve_route {
    const char *method, *path;
    bool below; /* whatever follows the path belongs to it */
    bool open;  /* needs no key */
    enum MHD_Result (*answer)(serve_call *call);
};

/* Looks at the headers: finds the route, or the error to answer instead, maybe before the body (call->closes). */
void serve_admit(serve_call *call, const char *method, const char *path);
/* Takes a piece of the body; MHD_NO: enough was read for nothing. */
enum MHD_Result serve_take_body(serve_call *call, const char *data, size_t size);
/* Decodes %XX in place; for MHD_OPTION_UNESCAPE_CALLBACK. */
size_t serve_unescape(void *user, struct MHD_Connection *connection, char *text);

/* The route of this method and path, or NULL with an error (404, 405). *rest: what follows its path. */
const serve_route *serve_route_find(const char *method, const char *path, const char **rest, serve_error *error);

/* Answers. The text is freed (NULL: no memory, which the client is told). */
enum MHD_Result serve_send(serve_call *call, unsigned status, const char *type, char *text, size_t size);
enum MHD_Result serve_send_json(serve_call *call, unsigned status, json_t *object); /* takes the reference */
enum MHD_Result serve_send_error(serve_call *call, const serve_error *error);
/* A response of the caller's, with the headers that every one has; it is released. */
enum MHD_Result serve_send_response(serve_call *call, unsigned status, struct MHD_Response *response);

/* Whether the client has closed the connection. */
bool serve_client_is_gone(const serve_call *call);

/* Whether the connection may be idle now, for it is we who are waited for. */
void serve_may_wait(const serve_call *call, bool wait);

/* POST /v1/completions (serve_completions.c). */
enum MHD_Result serve_completions(serve_call *call);

#endif
