/* What measuring programs ask of sessions. */
#include "infer/session.h"

#include <string.h>

/* Slots from ... to - 1 of a cache that grows. */
static void clear_rows(const psk_session *session, int kind, int64_t from, int64_t to) {
    const psk_session_layout *layout = &session->decoder->layout;
    const int64_t width = layout->width[kind];
    for (int64_t group = 0; group < layout->groups && width > 0; group++)
        memset(session->cache[kind] + (group * session->capacity + from) * width, 0,
               (size_t)((to - from) * width) * sizeof(float));
}

psk_status psk_session_skip(psk_session *session, int64_t tokens) {
    if (tokens < 0 || tokens > INT32_MAX - session->length)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens to skip after %lld: a session holds 0 ... %d",
                        (long long)tokens, (long long)session->length, INT32_MAX);
    const int64_t length = session->length + tokens;
    if (session->decoder->layout.ring == 0) {
        PSK_TRY(psk_session_reserve(session, length));
        for (int kind = 0; kind < PSK_CACHES; kind++)
            clear_rows(session, kind, session->rows, length);
        session->rows = length;
    }
    session->length = length;
    session->copies.fresh = false;
    return PSK_OK;
}

psk_step_bytes psk_session_step_bytes(const psk_session *session) {
    const psk_decoder *decoder = session->decoder;
    const psk_session_layout *layout = &decoder->layout;
    const bool exact = layout->width[PSK_CACHE_K] > 0; /* pairs are weighed by q and k, or by a and b */
    const int64_t row = layout->width[PSK_CACHE_V] + layout->width[exact ? PSK_CACHE_K : PSK_CACHE_B];
    const int64_t floats = layout->state_floats + layout->groups * session->rows * row;
    const bool rounded = decoder->model->device->precision == PSK_PRECISION_BF16;
    const int64_t matrices = rounded ? psk_stepper_numbers(decoder) : 0; /* numbers that are read in bfloat16 */
    return (psk_step_bytes){
        .weights = decoder->model->params.floats * (int64_t)sizeof(float) -
                   matrices * (int64_t)(sizeof(float) - sizeof(psk_bf16)),
        .state = floats * (int64_t)(rounded ? sizeof(psk_bf16) : sizeof(float)),
    };
}
