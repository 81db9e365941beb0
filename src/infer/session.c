#include "infer/session.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------------------ memory
 */

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* n x Hkv L rows of the slots from ... from + n - 1, into a cache of another capacity. */
static psk_status copy_slots(const psk_session *session, int kind, int64_t n, float *out, int64_t capacity) {
    const psk_session_layout *layout = &session->decoder->layout;
    const int64_t width = layout->width[kind];
    if (n > 0)
        PSK_RUN(session->decoder->model->device, copy, .batch = layout->groups, .rows = n, .n = width,
                .x = session->cache[kind], .x_ld = width, .x_stride = session->capacity * width, .y = out,
                .y_ld = width, .y_stride = capacity * width, .alpha = 1);
    return PSK_OK;
}

static void free_caches(float *cache[PSK_CACHES]) {
    for (int kind = 0; kind < PSK_CACHES; kind++) {
        psk_free(cache[kind]);
        cache[kind] = NULL;
    }
}

static psk_status alloc_caches(const psk_session_layout *layout, int64_t capacity, float *cache[PSK_CACHES]) {
    psk_status status =
        psk_layout_bytes(layout, capacity) >= 0
            ? PSK_OK
            : psk_fail(PSK_ERROR_MEMORY, "a cache of %lld tokens is larger than memory can be", (long long)capacity);
    for (int kind = 0; kind < PSK_CACHES && status == PSK_OK; kind++)
        if (layout->width[kind] > 0)
            status = psk_alloc((size_t)(layout->groups * capacity * layout->width[kind]) * sizeof(float),
                               "the cache of a session", (void **)&cache[kind]);
    if (status != PSK_OK)
        free_caches(cache);
    return status;
}

psk_status psk_session_reserve(psk_session *session, int64_t tokens) {
    const psk_session_layout *layout = &session->decoder->layout;
    const int64_t capacity = psk_layout_capacity(layout, tokens);
    float *grown[PSK_CACHES] = {NULL};
    if (capacity == session->capacity)
        return PSK_OK;
    PSK_TRY(alloc_caches(layout, capacity, grown));
    psk_status status = PSK_OK;
    for (int kind = 0; kind < PSK_CACHES && status == PSK_OK; kind++)
        if (grown[kind] != NULL)
            status = copy_slots(session, kind, session->rows, grown[kind], capacity);
    free_caches(status == PSK_OK ? session->cache : grown);
    if (status != PSK_OK)
        return status;
    memcpy(session->cache, grown, sizeof grown);
    session->capacity = capacity;
    return PSK_OK;
}

static psk_status create_in(psk_session *session, psk_model *model) {
    session->copies.capacity = -1;
    PSK_TRY(psk_decoder_join(model, &session->decoder));
    const psk_session_layout *layout = &session->decoder->layout;
    if (layout->state_floats > 0)
        PSK_TRY(psk_alloc_zero((size_t)layout->state_floats * sizeof(float), "the state of a session",
                               (void **)&session->state));
    return psk_session_reserve(session, 0);
}

psk_status psk_session_create(psk_model *model, psk_session **out) {
    psk_session *session;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *session, "a session", (void **)&session));
    const psk_status status = create_in(session, model);
    if (status != PSK_OK) {
        psk_session_free(session);
        return status;
    }
    *out = session;
    return PSK_OK;
}

void psk_session_free(psk_session *session) {
    if (session == NULL)
        return;
    free_caches(session->cache);
    psk_session_release_copies(session);
    psk_free(session->state);
    psk_decoder_leave(session->decoder);
    psk_free(session);
}

void psk_session_reset(psk_session *session) {
    const psk_session_layout *layout = &session->decoder->layout;
    if (session->state != NULL)
        memset(session->state, 0, (size_t)layout->state_floats * sizeof(float));
    if (layout->ring == 0) {
        free_caches(session->cache);
        session->capacity = 0;
    }
    session->first = session->rows = session->length = 0;
    session->torn = false;
    session->copies.fresh = false;
}

psk_status psk_session_check_whole(const psk_session *session) {
    if (session->torn)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "the last call for this session failed in the middle of a token, after %lld whole ones: reset "
                        "or free it",
                        (long long)session->length);
    return PSK_OK;
}

psk_status psk_session_clone(const psk_session *session, psk_session **out) {
    const psk_session_layout *layout = &session->decoder->layout;
    psk_session *clone;
    *out = NULL;
    PSK_TRY(psk_session_check_whole(session));
    PSK_TRY(psk_session_create(session->decoder->model, &clone));
    psk_status status = psk_session_reserve(clone, session->length);
    for (int kind = 0; kind < PSK_CACHES && status == PSK_OK; kind++)
        if (layout->width[kind] > 0)
            status = copy_slots(session, kind, layout->ring > 0 ? layout->ring : session->rows, clone->cache[kind],
                                clone->capacity);
    if (status != PSK_OK) {
        psk_session_free(clone);
        return status;
    }
    if (session->state != NULL)
        memcpy(clone->state, session->state, (size_t)layout->state_floats * sizeof(float));
    clone->first = session->first;
    clone->rows = session->rows;
    clone->length = session->length;
    *out = clone;
    return PSK_OK;
}

int64_t psk_session_length(const psk_session *session) {
    return session->length;
}

int64_t psk_session_bytes(const psk_session *session) {
    return psk_decoder_bytes(session->decoder->model, session->capacity);
}

psk_status psk_session_rows(const psk_session *session, int kind, int64_t layer, int64_t rows, float *out,
                            int64_t stride) {
    const psk_decoder *decoder = session->decoder;
    const int64_t width = decoder->layout.width[kind];
    for (int64_t done = 0; done < rows;) { /* one piece, or two around the end of the ring */
        const int64_t slot = (session->first + done) % session->capacity;
        const int64_t n = smaller(rows - done, session->capacity - slot);
        PSK_RUN(decoder->model->device, copy, .batch = decoder->s.Hkv, .rows = n, .n = width,
                .x = psk_session_cache(session, kind, layer) + slot * width, .x_ld = width,
                .x_stride = session->capacity * width, .y = out + done * width, .y_ld = width, .y_stride = stride,
                .alpha = 1);
        done += n;
    }
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------ append
 */

static psk_status check_room(const psk_session *session, int64_t count) {
    PSK_TRY(psk_session_check_whole(session));
    if (count > INT32_MAX - session->length)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens after %lld: a session holds at most %d", (long long)count,
                        (long long)session->length, INT32_MAX);
    return PSK_OK;
}

static psk_status check_tokens(const psk_decoder *decoder, const int32_t *tokens, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= decoder->s.V)
            return psk_fail(PSK_ERROR_ARGUMENT, "token %lld is %d, must be 0 ... %lld (vocab_size - 1)", (long long)i,
                            (int)tokens[i], (long long)decoder->s.V - 1);
    return PSK_OK;
}

static psk_status begin_append(psk_session *session, const int32_t *tokens, int64_t count) {
    if (count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens to append, must be at least 1", (long long)count);
    PSK_TRY(check_room(session, count));
    PSK_TRY(check_tokens(session->decoder, tokens, count));
    return psk_session_reserve(session, session->length + count);
}

psk_status psk_session_append(psk_session *session, const int32_t *tokens, int64_t count, float *logits) {
    psk_decoder *decoder = session->decoder;
    if (count == 1)
        return psk_session_step(&session, 1, tokens, logits);
    PSK_TRY(begin_append(session, tokens, count));
    session->torn = true; /* until the end is reached */
    for (int64_t first = 0; first < count; first += PSK_SESSION_CHUNK) {
        const int64_t n = smaller(count - first, PSK_SESSION_CHUNK);
        PSK_TRY(psk_session_chunk(session, tokens + first, n));
        if (logits != NULL && first + n == count)
            PSK_TRY(
                psk_decoder_logits(decoder, decoder->model->device, 1, decoder->x + (n - 1) * decoder->s.D, logits));
    }
    session->torn = false;
    return PSK_OK;
}

/* Rows of logits computed at once by append_each: enough for the product, 13 MB at GPT-2's vocabulary. */
#define LOGIT_ROWS 64

/* Those of the n tokens of the chunk that has just run; token `first` of the call is the first of them. */
static psk_status visit_chunk(psk_decoder *decoder, int64_t first, int64_t n, float *logits, psk_logits_visitor visitor,
                              void *user) {
    for (int64_t i = 0; i < n; i++) {
        if (i % LOGIT_ROWS == 0)
            PSK_TRY(psk_decoder_logits(decoder, decoder->model->device, smaller(n - i, LOGIT_ROWS),
                                       decoder->x + i * decoder->s.D, logits));
        if (visitor(user, first + i, logits + i % LOGIT_ROWS * decoder->s.V) != 0)
            return psk_fail(PSK_ERROR_INTERRUPTED, "stopped after token %lld by the visitor", (long long)(first + i));
    }
    return PSK_OK;
}

psk_status psk_session_append_each(psk_session *session, const int32_t *tokens, int64_t count,
                                   psk_logits_visitor visitor, void *user) {
    psk_decoder *decoder = session->decoder;
    float *logits;
    PSK_TRY(psk_alloc((size_t)(smaller(count < 1 ? 1 : count, LOGIT_ROWS) * decoder->s.V) * sizeof *logits, "logits",
                      (void **)&logits));
    psk_status status = begin_append(session, tokens, count);
    const bool begun = status == PSK_OK;
    for (int64_t first = 0; first < count && status == PSK_OK; first += PSK_SESSION_CHUNK) {
        const int64_t n = smaller(count - first, PSK_SESSION_CHUNK);
        status = psk_session_chunk(session, tokens + first, n);
        if (status == PSK_OK)
            status = visit_chunk(decoder, first, n, logits, visitor, user);
    }
    if (begun)
        session->torn = status != PSK_OK && status != PSK_ERROR_INTERRUPTED;
    psk_free(logits);
    return status;
}

/* -------------------------------------------------------------------------------------------------------------- step
 */

static psk_status check_step(psk_session *const *sessions, int64_t count, const int32_t *tokens) {
    if (count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "a step of %lld sessions, there must be at least 1", (long long)count);
    PSK_TRY(check_tokens(sessions[0]->decoder, tokens, count));
    for (int64_t i = 0; i < count; i++) {
        PSK_TRY(check_room(sessions[i], 1));
        if (sessions[i]->decoder != sessions[0]->decoder)
            return psk_fail(PSK_ERROR_ARGUMENT, "session %lld of a step is of another model than session 0",
                            (long long)i);
        for (int64_t j = 0; j < i; j++)
            if (sessions[j] == sessions[i])
                return psk_fail(PSK_ERROR_ARGUMENT, "sessions %lld and %lld of a step are the same", (long long)j,
                                (long long)i);
    }
    for (int64_t i = 0; i < count; i++) {
        PSK_TRY(psk_session_reserve(sessions[i], sessions[i]->length + 1));
        PSK_TRY(psk_session_prepare_copies(sessions[i]));
    }
    return PSK_OK;
}

psk_status psk_session_step(psk_session *const *sessions, int64_t count, const int32_t *tokens, float *logits) {
    PSK_TRY(check_step(sessions, count, tokens));
    psk_decoder *decoder = sessions[0]->decoder;
    PSK_TRY(psk_stepper_prepare(decoder));
    for (int64_t i = 0; i < count; i++)
        sessions[i]->torn = true; /* until the end is reached */
    for (int64_t first = 0; first < count; first += PSK_STEP_SESSIONS) {
        const int64_t n = smaller(count - first, PSK_STEP_SESSIONS);
        PSK_TRY(psk_session_step_slice(sessions + first, n, tokens + first));
        if (logits != NULL)
            PSK_TRY(psk_decoder_logits(decoder, &decoder->stepper, n, decoder->x, logits + first * decoder->s.V));
    }
    for (int64_t i = 0; i < count; i++)
        sessions[i]->torn = false;
    return PSK_OK;
}
