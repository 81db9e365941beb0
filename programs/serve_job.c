#include "serve_job.h"

#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OUTPUT_LIMIT                                                                                                   \
    (256 << 10) /* bytes that may wait for a slow client: more than any burst, less than what adds up */

serve_token *serve_tokens_append(serve_tokens *list, serve_top **tops) {
    if (list->count == list->capacity) {
        const int64_t capacity = list->capacity ? 2 * list->capacity : 16;
        serve_token *const tokens = realloc(list->tokens, (size_t)capacity * sizeof *tokens);
        if (tokens)
            list->tokens = tokens;
        serve_top *const rows = realloc(list->tops, ((size_t)(capacity * list->top) + 1) * sizeof *rows);
        if (rows)
            list->tops = rows;
        if (!tokens || !rows)
            return NULL;
        list->capacity = capacity;
    }
    *tops = list->tops + list->count * list->top;
    return &list->tokens[list->count++];
}

bool serve_tokens_move(serve_tokens *list, int64_t count, serve_tokens *out) {
    if (count == 0)
        return true;
    for (int64_t i = 0; i < count; i++) {
        serve_top *row;
        serve_token *const token = serve_tokens_append(out, &row);
        if (!token)
            return false;
        *token = list->tokens[i];
        for (int64_t j = 0; j < list->top; j++)
            row[j] = list->tops[i * list->top + j];
    }
    const int64_t left = list->count - count;
    memmove(list->tokens, list->tokens + count, (size_t)left * sizeof *list->tokens);
    memmove(list->tops, list->tops + count * list->top, (size_t)(left * list->top) * sizeof *list->tops);
    list->count = left;
    return true;
}

void serve_tokens_free(serve_tokens *list) {
    free(list->tokens);
    free(list->tops);
    *list = (serve_tokens){.top = list->top};
}

serve_piece *serve_piece_create(int64_t choice, const char *text, size_t size) {
    serve_piece *const piece = calloc(1, sizeof *piece);
    char *const copy = malloc(size + 1);
    if (!piece || !copy) {
        free(piece);
        free(copy);
        return NULL;
    }
    if (size)
        memcpy(copy, text, size);
    copy[size] = '\0';
    piece->choice = choice;
    piece->text = copy;
    piece->size = size;
    return piece;
}

void serve_piece_free(serve_piece *piece) {
    if (!piece)
        return;
    serve_tokens_free(&piece->tokens);
    psk_buffer_free(piece->state.data);
    free(piece->text);
    free(piece);
}

serve_job *serve_job_create(serve_request *request) {
    serve_job *const job = calloc(1, sizeof *job);
    if (!job) {
        serve_request_free(request);
        return NULL;
    }
    job->request = *request;
    *request = (serve_request){.n = 0};
    atomic_init(&job->references, 1);
    atomic_init(&job->cancelled, false);
    pthread_mutex_init(&job->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    job->submitted = seconds_now();
    return job;
}

void serve_job_hold(serve_job *job) {
    atomic_fetch_add(&job->references, 1);
}

void serve_job_release(serve_job *job) {
    if (!job || atomic_fetch_sub(&job->references, 1) > 1)
        return;
    for (serve_piece *piece = job->first, *next; piece; piece = next) {
        next = piece->next;
        serve_piece_free(piece);
    }
    serve_state_release(job->state);
    serve_request_free(&job->request);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static int64_t piece_bytes(const serve_piece *piece) {
    const serve_tokens *const list = &piece->tokens;
    return (int64_t)(sizeof *piece + piece->size + (size_t)list->count * sizeof *list->tokens +
                     (size_t)(list->count * list->top) * sizeof *list->tops);
}

void serve_job_put(serve_job *job, serve_piece *piece) {
    pthread_mutex_lock(&job->lock);
    *(job->first ? &job->last->next : &job->first) = piece;
    job->last = piece;
    job->pending_bytes += piece_bytes(piece);
    if (job->first_text == 0)
        job->first_text = seconds_now();
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

bool serve_job_is_full(serve_job *job) {
    pthread_mutex_lock(&job->lock);
    const bool full = job->pending_bytes > OUTPUT_LIMIT;
    pthread_mutex_unlock(&job->lock);
    return full;
}

void serve_job_end(serve_job *job, const serve_error *error) {
    pthread_mutex_lock(&job->lock);
    if (error)
        job->error = *error;
    job->ended = true;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static struct timespec time_after(double seconds) {
    const double at = seconds_now() + seconds;
    const time_t whole = (time_t)at;
    return (struct timespec){.tv_sec = whole, .tv_nsec = (long)((at - (double)whole) * 1e9)};
}

serve_piece *serve_job_take(serve_job *job, double seconds, bool *ended) {
    const struct timespec until = time_after(seconds);
    pthread_mutex_lock(&job->lock);
    while (!job->first && !job->ended && pthread_cond_timedwait(&job->changed, &job->lock, &until) == 0)
        continue;
    serve_piece *const pieces = job->first;
    job->first = job->last = NULL;
    job->pending_bytes = 0;
    *ended = job->ended;
    pthread_mutex_unlock(&job->lock);
    return pieces;
}
