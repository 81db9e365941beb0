/* A chunk of a prompt through the layers. */
#include "infer/session.h"

/* The rows of a chunk of n tokens behind those that are kept, and a view of both. A cache that grows holds both; the
 * rows of a ring are brought together in the decoder's workspace, unless there are none. */
static psk_status join_rows(const psk_session *session, int kind, int64_t layer, int64_t n, float *rows,
                            psk_rows *view) {
    const psk_decoder *decoder = session->decoder;
    const int64_t width = decoder->layout.width[kind], kept = session->rows;
    *view = (psk_rows){.data = width > 0 ? rows : NULL, .group_stride = n * width, .width = width};
    if (width == 0 || (decoder->layout.ring > 0 && kept == 0))
        return PSK_OK;
    if (decoder->layout.ring > 0) {
        view->data = decoder->keys[kind];
        view->group_stride = (kept + n) * width;
        PSK_TRY(psk_session_rows(session, kind, layer, kept, view->data, view->group_stride));
    } else {
        view->data = psk_session_cache(session, kind, layer);
        view->group_stride = session->capacity * width;
    }
    PSK_RUN(decoder->model->device, copy, .batch = decoder->s.Hkv, .rows = n, .n = width, .x = rows, .x_ld = width,
            .x_stride = n * width, .y = view->data + kept * width, .y_ld = width, .y_stride = view->group_stride,
            .alpha = 1);
    return PSK_OK;
}

/* The last `tail` of Nk rows become the rows that are kept. */
static psk_status keep_tail(const psk_session *session, int kind, int64_t layer, const psk_rows *view, int64_t Nk,
                            int64_t tail) {
    const psk_decoder *decoder = session->decoder;
    if (view->width > 0 && tail > 0)
        PSK_RUN(decoder->model->device, copy, .batch = decoder->s.Hkv, .rows = tail, .n = view->width,
                .x = view->data + (Nk - tail) * view->width, .x_ld = view->width, .x_stride = view->group_stride,
                .y = psk_session_cache(session, kind, layer), .y_ld = view->width,
                .y_stride = session->capacity * view->width, .alpha = 1);
    return PSK_OK;
}

static psk_rows query_view(const psk_sizes *s, float *data, int64_t n, int64_t width) {
    return (psk_rows){data, s->H / s->Hkv * n * width, n * width, width};
}

psk_status psk_session_fold(const psk_session *session, int64_t layer, const psk_attention_views *keys) {
    const psk_decoder *decoder = session->decoder;
    const int64_t n = decoder->layout.state_floats / decoder->s.L;
    psk_attention_views views = *keys;
    views.Nq = 0;
    views.state0 = NULL;
    views.state1 = decoder->folded;
    if (n == 0 || views.Nk == psk_attention_tail(&decoder->model->config.attention, views.Nk))
        return PSK_OK;
    PSK_TRY(psk_attention_core_forward(decoder->attention, &views));
    PSK_RUN(decoder->model->device, copy, .batch = 1, .rows = 1, .n = n, .x_ld = n, .y_ld = n, .x = decoder->folded,
            .y = psk_session_state(session, layer), .alpha = 1, .write = PSK_ADD);
    return PSK_OK;
}

/* act.q, act.k, act.v of n new tokens -> act.o; rows and state move on. */
static psk_status attend(const psk_session *session, const psk_block *block, int64_t n) {
    const psk_decoder *decoder = session->decoder;
    const psk_activations *act = &decoder->act;
    psk_attention_views views = {
        .groups = decoder->s.Hkv,
        .Nq = n,
        .Nk = session->rows + n,
        .q = query_view(&decoder->s, psk_block_multiplied(block, &act->q), n, decoder->s.h),
        .a = query_view(&decoder->s, act->q.s, n, decoder->s.r),
        .state0 = psk_session_state(session, block->layer),
        .out = query_view(&decoder->s, act->o, n, decoder->s.h),
        .normaliser = query_view(&decoder->s, act->normaliser, n, 1),
    };
    float *const rows[PSK_CACHES] = {psk_block_multiplied(block, &act->k), act->v, act->k.s};
    psk_rows *const kinds[PSK_CACHES] = {&views.k, &views.v, &views.b};
    for (int kind = 0; kind < PSK_CACHES; kind++)
        PSK_TRY(join_rows(session, kind, block->layer, n, rows[kind], kinds[kind]));
    PSK_TRY(psk_attention_core_forward(decoder->attention, &views));
    PSK_TRY(psk_session_fold(session, block->layer, &views));
    const int64_t tail = psk_attention_tail(&decoder->model->config.attention, views.Nk);
    for (int kind = 0; kind < PSK_CACHES && decoder->layout.ring > 0; kind++)
        PSK_TRY(keep_tail(session, kind, block->layer, kinds[kind], views.Nk, tail));
    return PSK_OK;
}

static psk_status run_layer(const psk_session *session, int64_t layer, int64_t n) {
    const psk_decoder *decoder = session->decoder;
    const psk_model *model = decoder->model;
    const psk_block block = {
        .device = model->device,
        .config = &model->config,
        .s = decoder->s,
        .B = 1,
        .N = n,
        .layer = layer,
        .weights = psk_params_layer(&model->params, &model->config, layer, model->weights),
        .act = decoder->act,
        .work = decoder->work,
        .positions = decoder->positions,
    };
    PSK_TRY(psk_block_projections(&block, decoder->x));
    PSK_TRY(attend(session, &block, n));
    return psk_block_outputs(&block, decoder->x, decoder->x);
}

psk_status psk_session_chunk(psk_session *session, const int32_t *tokens, int64_t n) {
    psk_decoder *decoder = session->decoder;
    const psk_model *model = decoder->model;
    int32_t *positions = decoder->positions;
    for (int64_t i = 0; i < n; i++)
        positions[i] = (int32_t)(session->length + i);
    PSK_RUN(model->device, embedding_forward, .rows = n, .D = decoder->s.D, .tokens = tokens, .positions = positions,
            .wte = psk_params_model(&model->params, model->weights).wte, .x = decoder->x,
            .position_scale = model->config.position_scale);
    for (int64_t layer = 0; layer < decoder->s.L; layer++)
        PSK_TRY(run_layer(session, layer, n));
    session->rows = psk_attention_tail(&model->config.attention, session->rows + n);
    session->first = 0;
    session->length += n;
    session->copies.fresh = false;
    return PSK_OK;
}

psk_status psk_decoder_logits(psk_decoder *decoder, psk_device *device, int64_t rows, const float *x, float *logits) {
    const psk_model *model = decoder->model;
    const psk_activations *act = &decoder->act; /* the layers are through with it */
    const psk_model_pointers weights = psk_params_model(&model->params, model->weights);
    PSK_RUN(device, layernorm_forward, .rows = rows, .n = decoder->s.D, .x = x, .weight = weights.ln_f_weight,
            .bias = weights.ln_f_bias, .y = act->n1, .mean = act->mean1, .rstd = act->rstd1, .eps = PSK_LAYERNORM_EPS);
    return psk_head_logits(device, &decoder->s, &weights, rows, act->n1, logits);
}
