/* One token in each of several sessions. */
#include "infer/session.h"

/* The oldest block of a full ring into the state: its rows are brought in order, then read as keys without a query. */
static psk_status fold(const psk_session *session, int64_t layer) {
    const psk_decoder *decoder = session->decoder;
    const psk_session_layout *layout = &decoder->layout;
    psk_attention_views views = {.groups = decoder->s.Hkv, .Nk = layout->ring};
    psk_rows *const kinds[PSK_CACHES] = {&views.k, &views.v, &views.b};
    for (int kind = 0; kind < PSK_CACHES; kind++) {
        const int64_t width = layout->width[kind];
        *kinds[kind] = (psk_rows){decoder->keys[kind], layout->ring * width, 0, width};
        if (width > 0)
            PSK_TRY(psk_session_rows(session, kind, layer, layout->ring, decoder->keys[kind], layout->ring * width));
    }
    views.q = (psk_rows){decoder->act.q.x, 0, 0, layout->width[PSK_CACHE_K]};
    views.a = (psk_rows){decoder->act.q.s, 0, 0, layout->width[PSK_CACHE_B]};
    views.out = (psk_rows){decoder->act.o, 0, 0, decoder->s.h};
    views.normaliser = (psk_rows){decoder->act.normaliser, 0, 0, 1};
    PSK_TRY(psk_session_fold(session, layer, &views));
    return psk_session_copy_state(session, layer);
}

static bool is_full(const psk_session *session) {
    return session->rows + 1 == session->decoder->layout.ring;
}

/* What an attention_step reads and writes of one layer of a session. */
static psk_step_session layer_of(const psk_session *session, int64_t layer) {
    const psk_decoder *decoder = session->decoder;
    const psk_session_copies *copies = &session->copies;
    float *rows[PSK_CACHES] = {NULL};
    psk_bf16 *rounded[PSK_CACHES] = {NULL};
    for (int kind = 0; kind < PSK_CACHES; kind++) {
        const int64_t offset = layer * decoder->s.Hkv * session->capacity * decoder->layout.width[kind];
        if (session->cache[kind] != NULL)
            rows[kind] = session->cache[kind] + offset;
        if (copies->cache[kind] != NULL)
            rounded[kind] = copies->cache[kind] + offset;
    }
    psk_step_session view = {.state = psk_session_state(session, layer),
                             .k = rows[PSK_CACHE_K],
                             .v = rows[PSK_CACHE_V],
                             .b = rows[PSK_CACHE_B],
                             .capacity = session->capacity,
                             .first = session->first,
                             .rows = session->rows};
    if (copies->state != NULL)
        view.rounded.state = copies->state + layer * (decoder->layout.state_floats / decoder->s.L);
    view.rounded.k = rounded[PSK_CACHE_K];
    view.rounded.v = rounded[PSK_CACHE_V];
    view.rounded.b = rounded[PSK_CACHE_B];
    return view;
}

/* act.q, act.k, act.v of the new tokens -> act.o; rows and states move on. */
static psk_status attend(psk_session *const *sessions, int64_t count, const psk_block *block) {
    const psk_decoder *decoder = sessions[0]->decoder;
    const psk_activations *act = &decoder->act;
    psk_step_session *const kept = decoder->step_sessions;
    for (int64_t i = 0; i < count; i++)
        kept[i] = layer_of(sessions[i], block->layer);
    PSK_RUN(block->device, attention_step, .config = &block->config->attention, .count = count, .H = decoder->s.H,
            .Hkv = decoder->s.Hkv, .h = decoder->s.h, .d = decoder->s.h, .r = decoder->s.r, .sessions = kept,
            .q = psk_block_multiplied(block, &act->q), .a = act->q.s, .k = psk_block_multiplied(block, &act->k),
            .v = act->v, .b = act->k.s, .out = act->o);
    for (int64_t i = 0; i < count; i++) /* without a state the oldest block is forgotten */
        if (sessions[i]->state != NULL && is_full(sessions[i]))
            PSK_TRY(fold(sessions[i], block->layer));
    return PSK_OK;
}

static psk_status run_layer(psk_session *const *sessions, int64_t count, int64_t layer) {
    psk_decoder *decoder = sessions[0]->decoder;
    const psk_model *model = decoder->model;
    const psk_block block = {
        .device = &decoder->stepper,
        .config = &model->config,
        .s = decoder->s,
        .B = count,
        .N = 1,
        .layer = layer,
        .weights = psk_params_layer(&model->params, &model->config, layer, model->weights),
        .act = decoder->act,
        .work = decoder->work,
        .positions = decoder->positions,
    };
    PSK_TRY(psk_block_projections(&block, decoder->x));
    PSK_TRY(attend(sessions, count, &block));
    return psk_block_outputs(&block, decoder->x, decoder->x);
}

static void advance(psk_session *session) {
    const psk_session_layout *layout = &session->decoder->layout;
    const bool full = is_full(session);
    session->length++;
    session->rows++;
    if (!full)
        return;
    session->first = (session->first + layout->fold) % layout->ring;
    session->rows -= layout->fold;
}

psk_status psk_session_step_slice(psk_session *const *sessions, int64_t count, const int32_t *tokens) {
    psk_decoder *decoder = sessions[0]->decoder;
    const psk_model *model = decoder->model;
    int32_t *positions = decoder->positions;
    for (int64_t i = 0; i < count; i++)
        positions[i] = (int32_t)sessions[i]->length;
    PSK_RUN(model->device, embedding_forward, .rows = count, .D = decoder->s.D, .tokens = tokens,
            .positions = positions, .wte = psk_params_model(&model->params, model->weights).wte, .x = decoder->x,
            .position_scale = model->config.position_scale);
    for (int64_t layer = 0; layer < decoder->s.L; layer++)
        PSK_TRY(run_layer(sessions, count, layer));
    for (int64_t i = 0; i < count; i++)
        advance(sessions[i]);
    return PSK_OK;
}
