/* The copies in bfloat16 that steps read. */
#include "infer/session.h"

/* The kinds of rows that a step reads: v, and what weighs the pairs. */
static bool is_read(const psk_session_layout *layout, int kind) {
    const bool exact = layout->width[PSK_CACHE_K] > 0;
    return layout->width[kind] > 0 && (kind == PSK_CACHE_V || (kind == PSK_CACHE_K) == exact);
}

int64_t psk_session_copies_bytes(const psk_session_layout *layout, int64_t capacity) {
    int64_t row = 0, numbers, bytes;
    for (int kind = 0; kind < PSK_CACHES; kind++)
        row += is_read(layout, kind) ? layout->width[kind] : 0;
    if (psk_size_mul(layout->groups * row, capacity, &numbers) != PSK_OK ||
        __builtin_add_overflow(numbers, layout->state_floats, &numbers) ||
        psk_size_mul(numbers, (int64_t)sizeof(psk_bf16), &bytes) != PSK_OK)
        return -1;
    return bytes;
}

void psk_session_release_copies(psk_session *session) {
    psk_session_copies *copies = &session->copies;
    psk_free(copies->state);
    for (int kind = 0; kind < PSK_CACHES; kind++)
        psk_free(copies->cache[kind]);
    *copies = (psk_session_copies){.capacity = -1};
}

static psk_status make_copies(psk_session *session) {
    const psk_session_layout *layout = &session->decoder->layout;
    psk_session_copies *copies = &session->copies;
    static const char what[] = "copies in bfloat16 of a session";
    if (layout->state_floats > 0)
        PSK_TRY(psk_alloc((size_t)layout->state_floats * sizeof(psk_bf16), what, (void **)&copies->state));
    for (int kind = 0; kind < PSK_CACHES; kind++)
        if (is_read(layout, kind))
            PSK_TRY(psk_alloc((size_t)(layout->groups * session->capacity * layout->width[kind]) * sizeof(psk_bf16),
                              what, (void **)&copies->cache[kind]));
    copies->capacity = session->capacity;
    return PSK_OK;
}

/* The kept rows of one kind, of all layers: one piece, or two around the end of the ring. */
static psk_status copy_rows(const psk_session *session, int kind) {
    const psk_session_layout *layout = &session->decoder->layout;
    const int64_t width = layout->width[kind], ld = session->capacity * width;
    for (int64_t done = 0; done < session->rows;) {
        const int64_t slot = (session->first + done) % session->capacity;
        const int64_t left = session->rows - done, to_end = session->capacity - slot;
        const int64_t n = left < to_end ? left : to_end;
        PSK_RUN(session->decoder->model->device, round_rows, .rows = layout->groups, .n = n * width, .x_ld = ld,
                .y_ld = ld, .x = session->cache[kind] + slot * width, .y = session->copies.cache[kind] + slot * width);
        done += n;
    }
    return PSK_OK;
}

psk_status psk_session_copy_state(const psk_session *session, int64_t layer) {
    const psk_decoder *decoder = session->decoder;
    const int64_t d = decoder->s.h, heads = decoder->s.Hkv,
                  m = decoder->layout.state_floats / (decoder->s.L * heads * (d + 1));
    for (int64_t head = 0; head < heads && session->copies.state != NULL; head++) {
        const int64_t first = (layer * heads + head) * m * (d + 1);
        const float *z = session->state + first;
        psk_bf16 *copy = session->copies.state + first;
        PSK_RUN(decoder->model->device, round_rows, .rows = m, .n = d, .x_ld = d + 1, .y_ld = d, .x = z, .y = copy);
        PSK_RUN(decoder->model->device, round_rows, .rows = m, .n = 1, .x_ld = d + 1, .y_ld = 1, .x = z + d,
                .y = copy + m * d);
    }
    return PSK_OK;
}

static psk_status refresh(psk_session *session) {
    for (int64_t layer = 0; layer < session->decoder->s.L; layer++)
        PSK_TRY(psk_session_copy_state(session, layer));
    for (int kind = 0; kind < PSK_CACHES; kind++)
        if (session->copies.cache[kind] != NULL)
            PSK_TRY(copy_rows(session, kind));
    session->copies.fresh = true;
    return PSK_OK;
}

psk_status psk_session_prepare_copies(psk_session *session) {
    if (session->decoder->model->device->precision != PSK_PRECISION_BF16) {
        psk_session_release_copies(session);
        return PSK_OK;
    }
    if (session->copies.capacity != session->capacity) {
        psk_session_release_copies(session);
        const psk_status status = make_copies(session);
        if (status != PSK_OK) {
            psk_session_release_copies(session);
            return status;
        }
    }
    return session->copies.fresh ? PSK_OK : refresh(session);
}
