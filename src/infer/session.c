#include "infer/session.h"

/* Rows of one kind, of all layers: L x Hkv x capacity x width. data == NULL where nothing of the kind is kept. */
typedef struct psk_cache {
    float *data;
    int64_t width;
} psk_cache;

enum { PSK_CACHE_K, PSK_CACHE_V, PSK_CACHE_B, PSK_CACHES };

struct psk_session {
    psk_model *model;
    psk_sizes s;
    psk_arena *arena; /* of everything up to the blank line: what one chunk needs */
    psk_attention *attention;
    psk_activations act;
    psk_block_workspace work;
    float *x, *mean, *rstd, *final; /* chunk x D; of the last row: 1, 1, D */
    void *positions;                /* chunk int32 */

    float *state;                /* L x Hkv x m x (d+1); NULL without one */
    int64_t state_floats;        /* of one layer */
    psk_cache cache[PSK_CACHES]; /* k'' (softmax: k, polynomial: k'), v, b */
    int64_t rows, capacity;      /* kept and possible, for each layer and head; capacity 0: this form keeps none */
    int64_t length;              /* tokens so far */
};

/* ------------------------------------------------------------------------------------------------------------ create
 */

static psk_status plan_chunk(psk_session *session, psk_arena *arena) {
    const psk_model_config *config = &session->model->config;
    const psk_sizes *s = &session->s;
    /* The number of keys is not known; the workspace depends on their tiles alone. */
    const psk_attention_shape shape = {1, s->H, s->Hkv, PSK_SESSION_CHUNK, INT32_MAX, s->h, s->h, s->r};
    PSK_TRY(psk_attention_plan(session->model->device, &config->attention, &shape, arena, &session->attention));
    PSK_TRY(psk_block_plan_activations(config, 1, PSK_SESSION_CHUNK, "layer", arena, &session->act));
    PSK_TRY(psk_block_plan_workspace(config, 1, PSK_SESSION_CHUNK, false, arena, &session->work));
    PSK_TRY(psk_arena_floats(arena, "activations", "x", PSK_SESSION_CHUNK * s->D, &session->x));
    PSK_TRY(psk_arena_floats(arena, "activations", "mean", 1, &session->mean));
    PSK_TRY(psk_arena_floats(arena, "activations", "rstd", 1, &session->rstd));
    PSK_TRY(psk_arena_floats(arena, "activations", "final", s->D, &session->final));
    return psk_arena_reserve(arena, "data", "positions", PSK_SESSION_CHUNK * (int64_t)sizeof(int32_t),
                             &session->positions);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Most rows that are ever kept, those of a chunk included; 0: none have to be kept from one chunk to the next. */
static int64_t most_rows(const psk_session *session) {
    const psk_attention_config *attention = &session->model->config.attention;
    if (!psk_attention_uses_ab(attention))
        return INT32_MAX;
    if (!session->s.local_norms)
        return 0;
    const int64_t blocks = attention->local == PSK_LOCAL_WINDOW ? 2 : 1;
    return blocks * attention->block_size - 1 + PSK_SESSION_CHUNK;
}

/* Floats of a cache of `capacity` rows. */
static psk_status cache_floats(const psk_session *session, int kind, int64_t capacity, int64_t *floats) {
    PSK_TRY(psk_size_mul(session->s.L * session->s.Hkv * session->cache[kind].width, capacity, floats));
    int64_t bytes;
    return psk_size_mul(*floats, (int64_t)sizeof(float), &bytes);
}

/* The kept rows of a cache into a larger one. */
static psk_status grow_cache(const psk_session *session, int kind, int64_t capacity, float **out) {
    const psk_cache *cache = &session->cache[kind];
    int64_t floats;
    PSK_TRY(cache_floats(session, kind, capacity, &floats));
    PSK_TRY(psk_alloc((size_t)floats * sizeof(float), "the cache of a session", (void **)out));
    if (session->rows > 0)
        PSK_RUN(session->model->device, copy, .batch = session->s.L * session->s.Hkv, .rows = session->rows,
                .n = cache->width, .x = cache->data, .x_ld = cache->width, .x_stride = session->capacity * cache->width,
                .y = *out, .y_ld = cache->width, .y_stride = capacity * cache->width, .alpha = 1);
    return PSK_OK;
}

/* Room for `rows` rows, doubling; on error nothing has changed. */
static psk_status reserve_rows(psk_session *session, int64_t rows) {
    int64_t capacity = session->capacity > 0 ? session->capacity : smaller(2 * PSK_SESSION_CHUNK, most_rows(session));
    while (capacity < rows)
        capacity = smaller(2 * capacity, most_rows(session));
    if (capacity == session->capacity)
        return PSK_OK;
    float *grown[PSK_CACHES] = {NULL};
    psk_status status = PSK_OK;
    for (int kind = 0; kind < PSK_CACHES && status == PSK_OK; kind++)
        if (session->cache[kind].width > 0)
            status = grow_cache(session, kind, capacity, &grown[kind]);
    for (int kind = 0; kind < PSK_CACHES; kind++) {
        psk_free(status == PSK_OK ? session->cache[kind].data : grown[kind]);
        if (status == PSK_OK)
            session->cache[kind].data = grown[kind];
    }
    if (status == PSK_OK)
        session->capacity = capacity;
    return status;
}

static psk_status create_state(psk_session *session) {
    const psk_sizes *s = &session->s;
    const int64_t m = psk_attention_state_rows(&session->model->config.attention);
    int64_t floats, bytes;
    PSK_TRY(psk_size_mul(m * (s->h + 1), s->Hkv, &session->state_floats));
    PSK_TRY(psk_size_mul(session->state_floats, s->L, &floats));
    PSK_TRY(psk_size_mul(floats, (int64_t)sizeof(float), &bytes));
    if (floats > 0)
        PSK_TRY(psk_alloc_zero((size_t)bytes, "the state of a session", (void **)&session->state));
    session->cache[PSK_CACHE_K].width = psk_attention_uses_qk(&session->model->config.attention) ? s->h : 0;
    session->cache[PSK_CACHE_V].width = s->h;
    session->cache[PSK_CACHE_B].width = s->r;
    return most_rows(session) > 0 ? reserve_rows(session, 0) : PSK_OK;
}

psk_status psk_session_create(psk_model *model, psk_session **out) {
    *out = NULL;
    psk_session *session;
    psk_status status;
    PSK_TRY(psk_alloc_zero(sizeof *session, "a session", (void **)&session));
    session->model = model;
    session->s = psk_sizes_of(&model->config);
    PSK_TRY_GOTO(status, psk_arena_create(&session->arena), failed);
    PSK_TRY_GOTO(status, plan_chunk(session, session->arena), failed);
    PSK_TRY_GOTO(status, psk_arena_commit(session->arena, PSK_FILL_NONE), failed);
    PSK_TRY_GOTO(status, create_state(session), failed);
    *out = session;
    return PSK_OK;
failed:
    psk_session_free(session);
    return status;
}

void psk_session_free(psk_session *session) {
    if (session == NULL)
        return;
    for (int kind = 0; kind < PSK_CACHES; kind++)
        psk_free(session->cache[kind].data);
    psk_free(session->state);
    psk_attention_free(session->attention);
    psk_arena_free(session->arena);
    psk_free(session);
}

int64_t psk_session_length(const psk_session *session) {
    return session->length;
}

int64_t psk_session_bytes(const psk_session *session) {
    int64_t row = 0;
    for (int kind = 0; kind < PSK_CACHES; kind++)
        row += session->cache[kind].width;
    return (session->s.L * (session->state_floats + session->s.Hkv * session->capacity * row)) * (int64_t)sizeof(float);
}

/* ------------------------------------------------------------------------------------------------------------- chunk
 */

static float *cache_of(const psk_session *session, int kind, int64_t layer) {
    const psk_cache *cache = &session->cache[kind];
    return cache->data + layer * session->s.Hkv * session->capacity * cache->width;
}

/* The rows of a chunk of n tokens behind those that are kept, and a view of both. Where nothing is kept the view is of
 * the chunk alone. */
static psk_status extend(const psk_session *session, int kind, int64_t layer, int64_t n, float *rows, psk_rows *view) {
    const int64_t width = session->cache[kind].width, stride = session->capacity * width;
    *view = (psk_rows){.data = width > 0 ? rows : NULL, .group_stride = n * width, .width = width};
    if (width == 0 || session->capacity == 0)
        return PSK_OK;
    *view = (psk_rows){.data = cache_of(session, kind, layer), .group_stride = stride, .width = width};
    PSK_RUN(session->model->device, copy, .batch = session->s.Hkv, .rows = n, .n = width, .x = rows, .x_ld = width,
            .x_stride = n * width, .y = view->data + session->rows * width, .y_ld = width, .y_stride = stride,
            .alpha = 1);
    return PSK_OK;
}

/* The first `gone` of `rows` rows are in Z: the others move up, in pieces that do not overlap. */
static psk_status drop_rows(const psk_session *session, int kind, int64_t layer, int64_t rows, int64_t gone) {
    const int64_t width = session->cache[kind].width, stride = session->capacity * width;
    float *data = cache_of(session, kind, layer);
    for (int64_t first = 0; first < rows - gone; first += gone)
        PSK_RUN(session->model->device, copy, .batch = session->s.Hkv, .rows = smaller(gone, rows - gone - first),
                .n = width, .x = data + (first + gone) * width, .x_ld = width, .x_stride = stride,
                .y = data + first * width, .y_ld = width, .y_stride = stride, .alpha = 1);
    return PSK_OK;
}

static psk_rows query_view(const psk_session *session, float *data, int64_t n, int64_t width) {
    return (psk_rows){data, session->s.H / session->s.Hkv * n * width, n * width, width};
}

/* act.q, act.k, act.v of n new tokens -> act.o; cache and state move on. */
static psk_status attend(const psk_session *session, const psk_block *block, int64_t layer, int64_t n) {
    const psk_activations *act = &session->act;
    float *state = session->state != NULL ? session->state + layer * session->state_floats : NULL;
    psk_attention_views views = {
        .groups = session->s.Hkv,
        .Nq = n,
        .Nk = session->rows + n,
        .q = query_view(session, psk_block_multiplied(block, &act->q), n, session->s.h),
        .a = query_view(session, act->q.s, n, session->s.r),
        .state0 = state,
        .state1 = state,
        .out = query_view(session, act->o, n, session->s.h),
        .normaliser = query_view(session, act->normaliser, n, 1),
    };
    PSK_TRY(extend(session, PSK_CACHE_K, layer, n, psk_block_multiplied(block, &act->k), &views.k));
    PSK_TRY(extend(session, PSK_CACHE_V, layer, n, act->v, &views.v));
    PSK_TRY(extend(session, PSK_CACHE_B, layer, n, act->k.s, &views.b));
    PSK_TRY(psk_attention_core_forward(session->attention, &views));
    const int64_t gone = views.Nk - psk_attention_tail(&session->model->config.attention, views.Nk);
    for (int kind = 0; kind < PSK_CACHES && gone > 0 && session->capacity > 0; kind++)
        if (session->cache[kind].width > 0)
            PSK_TRY(drop_rows(session, kind, layer, views.Nk, gone));
    return PSK_OK;
}

static psk_status run_layer(const psk_session *session, int64_t layer, int64_t n) {
    const psk_model *model = session->model;
    const psk_block block = {
        .device = model->device,
        .config = &model->config,
        .s = session->s,
        .B = 1,
        .N = n,
        .layer = layer,
        .weights = psk_params_layer(&model->params, &model->config, layer, model->weights),
        .act = session->act,
        .work = session->work,
        .positions = session->positions,
    };
    PSK_TRY(psk_block_projections(&block, session->x));
    PSK_TRY(attend(session, &block, layer, n));
    return psk_block_outputs(&block, session->x, session->x);
}

/* n tokens through all layers. */
static psk_status run_chunk(psk_session *session, const int32_t *tokens, int64_t n) {
    const psk_model *model = session->model;
    for (int64_t i = 0; i < n; i++)
        ((int32_t *)session->positions)[i] = (int32_t)(session->length + i);
    PSK_RUN(model->device, embedding_forward, .rows = n, .D = session->s.D, .tokens = tokens,
            .positions = session->positions, .wte = psk_params_model(&model->params, model->weights).wte,
            .x = session->x);
    for (int64_t layer = 0; layer < session->s.L; layer++)
        PSK_TRY(run_layer(session, layer, n));
    if (session->capacity > 0)
        session->rows = psk_attention_tail(&model->config.attention, session->rows + n);
    session->length += n;
    return PSK_OK;
}

/* Logits of the last of the n tokens of the chunk that has just run. */
static psk_status last_logits(const psk_session *session, int64_t n, float *logits) {
    const psk_model *model = session->model;
    const psk_model_pointers weights = psk_params_model(&model->params, model->weights);
    PSK_RUN(model->device, layernorm_forward, .rows = 1, .n = session->s.D, .x = session->x + (n - 1) * session->s.D,
            .weight = weights.ln_f_weight, .bias = weights.ln_f_bias, .y = session->final, .mean = session->mean,
            .rstd = session->rstd, .eps = PSK_LAYERNORM_EPS);
    return psk_head_logits(model->device, &session->s, &weights, 1, session->final, logits);
}

static psk_status check_tokens(const psk_session *session, const int32_t *tokens, int64_t count) {
    if (count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens to append, must be at least 1", (long long)count);
    if (count > INT32_MAX - session->length)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens after %lld: a session holds at most %d", (long long)count,
                        (long long)session->length, INT32_MAX);
    for (int64_t i = 0; i < count; i++)
        if (tokens[i] < 0 || tokens[i] >= session->s.V)
            return psk_fail(PSK_ERROR_ARGUMENT, "token %lld is %d, must be 0 ... %lld (vocab_size - 1)", (long long)i,
                            (int)tokens[i], (long long)session->s.V - 1);
    return PSK_OK;
}

psk_status psk_session_append(psk_session *session, const int32_t *tokens, int64_t count, float *logits) {
    PSK_TRY(check_tokens(session, tokens, count));
    if (session->capacity > 0)
        PSK_TRY(reserve_rows(session, smaller(session->rows + count, most_rows(session))));
    for (int64_t first = 0; first < count; first += PSK_SESSION_CHUNK) {
        const int64_t n = smaller(count - first, PSK_SESSION_CHUNK);
        PSK_TRY(run_chunk(session, tokens + first, n));
        if (logits != NULL && first + n == count)
            PSK_TRY(last_logits(session, n, logits));
    }
    return PSK_OK;
}
