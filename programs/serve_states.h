/* Named states that clients keep on the server: bytes of state files in memory, with a budget. Any thread may call. */
#ifndef SERVE_STATES_H
#define SERVE_STATES_H

#include "serve_request.h"

typedef struct serve_states serve_states;

/* One stored state. It lives as long as somebody holds it, also when its name has gone or means another one. */
typedef struct serve_state {
    char name[SERVE_NAME_CAPACITY];
    serve_bytes bytes;
    int64_t tokens;
    int references; /* under the lock of the store */
    struct serve_states *store;
    struct serve_state *next;
} serve_state;

serve_states *serve_states_create(int64_t budget); /* bytes; NULL without memory */
void serve_states_free(serve_states *states);      /* after the last serve_state_release */

/* Stores a copy of `bytes` under the name, in place of what it meant. */
bool serve_states_put(serve_states *states, const char *name, const serve_bytes *bytes, int64_t tokens,
                      serve_error *error);
/* To be released; NULL, with an error (404), if there is none. */
serve_state *serve_states_get(serve_states *states, const char *name, serve_error *error);
bool serve_states_delete(serve_states *states, const char *name, serve_error *error);
void serve_state_release(serve_state *state); /* accepts NULL */

/* [{"name", "tokens", "bytes"}], NULL without memory. */
json_t *serve_states_list(serve_states *states);
void serve_states_size(serve_states *states, int64_t *count, int64_t *bytes);

#endif
