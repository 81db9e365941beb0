#include "serve_states.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct serve_states {
    pthread_mutex_t lock;
    serve_state *first;
    int64_t budget, bytes, count;
};

serve_states *serve_states_create(int64_t budget) {
    serve_states *const states = calloc(1, sizeof *states);
    if (!states)
        return NULL;
    pthread_mutex_init(&states->lock, NULL);
    states->budget = budget;
    return states;
}

/* With the lock held. */
static void drop(serve_state *state) {
    if (--state->references > 0)
        return;
    free(state->bytes.data);
    free(state);
}

static serve_state **find(serve_states *states, const char *name) {
    serve_state **place = &states->first;
    while (*place && strcmp((*place)->name, name) != 0)
        place = &(*place)->next;
    return place;
}

static void take_out(serve_states *states, serve_state **place) {
    serve_state *const state = *place;
    if (!state)
        return;
    *place = state->next;
    states->bytes -= (int64_t)state->bytes.size;
    states->count--;
    drop(state);
}

void serve_states_free(serve_states *states) {
    if (!states)
        return;
    while (states->first)
        take_out(states, &states->first);
    pthread_mutex_destroy(&states->lock);
    free(states);
}

static serve_state *make_state(serve_states *states, const char *name, const serve_bytes *bytes, int64_t tokens) {
    serve_state *const state = calloc(1, sizeof *state);
    void *const copy = malloc(bytes->size + 1);
    if (!state || !copy) {
        free(state);
        free(copy);
        return NULL;
    }
    memcpy(copy, bytes->data, bytes->size);
    strcpy(state->name, name);
    state->bytes = (serve_bytes){copy, bytes->size};
    state->tokens = tokens;
    state->references = 1;
    state->store = states;
    return state;
}

bool serve_states_put(serve_states *states, const char *name, const serve_bytes *bytes, int64_t tokens,
                      serve_error *error) {
    serve_state *const state = make_state(states, name, bytes, tokens);
    if (!state)
        return serve_fail(error, 503, NULL, NULL, "out of memory");
    pthread_mutex_lock(&states->lock);
    serve_state **const place = find(states, name);
    const int64_t replaced = *place ? (int64_t)(*place)->bytes.size : 0;
    const bool fits = states->bytes - replaced + (int64_t)bytes->size <= states->budget;
    if (fits) {
        take_out(states, place);
        state->next = states->first;
        states->first = state;
        states->bytes += (int64_t)bytes->size;
        states->count++;
    } else {
        serve_fail(
            error, 507, "state_storage_full", NULL,
            "state \"%s\" of %zu bytes does not fit: %lld of %lld bytes are taken; DELETE states that are done with",
            name, bytes->size, (long long)states->bytes, (long long)states->budget);
        drop(state);
    }
    pthread_mutex_unlock(&states->lock);
    return fits;
}

static bool no_such_state(serve_error *error, const char *name) {
    return serve_fail(error, 404, "state_not_found", "state", "there is no state \"%s\"", name);
}

serve_state *serve_states_get(serve_states *states, const char *name, serve_error *error) {
    pthread_mutex_lock(&states->lock);
    serve_state *const state = *find(states, name);
    if (state)
        state->references++;
    pthread_mutex_unlock(&states->lock);
    if (!state)
        no_such_state(error, name);
    return state;
}

bool serve_states_delete(serve_states *states, const char *name, serve_error *error) {
    pthread_mutex_lock(&states->lock);
    serve_state **const place = find(states, name);
    const bool found = *place != NULL;
    take_out(states, place);
    pthread_mutex_unlock(&states->lock);
    return found || no_such_state(error, name);
}

void serve_state_release(serve_state *state) {
    if (!state)
        return;
    pthread_mutex_t *const lock = &state->store->lock;
    pthread_mutex_lock(lock);
    drop(state);
    pthread_mutex_unlock(lock);
}

json_t *serve_states_list(serve_states *states) {
    json_t *const list = json_array();
    pthread_mutex_lock(&states->lock);
    for (const serve_state *state = states->first; list && state; state = state->next)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "name", state->name, "tokens",
                                              (json_int_t)state->tokens, "bytes", (json_int_t)state->bytes.size));
    pthread_mutex_unlock(&states->lock);
    return list;
}

void serve_states_size(serve_states *states, int64_t *count, int64_t *bytes) {
    pthread_mutex_lock(&states->lock);
    *count = states->count;
    *bytes = states->bytes;
    pthread_mutex_unlock(&states->lock);
}
