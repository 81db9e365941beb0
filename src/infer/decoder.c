#include "infer/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ------------------------------------------------------------------------------------------------------------ layout
 */

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

psk_session_layout psk_session_layout_of(const psk_model_config *config) {
    const psk_sizes s = psk_sizes_of(config);
    const psk_attention_config *attention = &config->attention;
    psk_session_layout layout = {.groups = s.L * s.Hkv};
    layout.state_floats = layout.groups * psk_attention_state_rows(attention) * (s.h + 1);
    layout.width[PSK_CACHE_K] = psk_attention_uses_qk(attention) ? s.h : 0;
    layout.width[PSK_CACHE_V] = s.h;
    layout.width[PSK_CACHE_B] = s.r;
    const bool local = psk_attention_has_local(attention);
    if (!local && !psk_attention_uses_ab(attention))
        return layout;
    layout.fold = local ? attention->block_size : smaller(attention->block_size, PSK_PENDING_ROWS);
    layout.ring = local && attention->local == PSK_LOCAL_WINDOW ? 2 * layout.fold : layout.fold;
    return layout;
}

int64_t psk_layout_capacity(const psk_session_layout *layout, int64_t tokens) {
    if (layout->ring > 0 || tokens == 0)
        return layout->ring;
    int64_t capacity = PSK_FIRST_ROWS;
    while (capacity < tokens)
        capacity *= 2;
    return smaller(capacity, INT32_MAX);
}

int64_t psk_layout_bytes(const psk_session_layout *layout, int64_t capacity) {
    int64_t row = 0, floats, bytes;
    for (int kind = 0; kind < PSK_CACHES; kind++)
        row += layout->width[kind];
    if (psk_size_mul(layout->groups * row, capacity, &floats) != PSK_OK ||
        __builtin_add_overflow(floats, layout->state_floats, &floats) ||
        psk_size_mul(floats, (int64_t)sizeof(float), &bytes) != PSK_OK)
        return -1;
    return bytes;
}

int64_t psk_decoder_bytes(const psk_model *model, int64_t capacity) {
    const psk_session_layout layout = psk_session_layout_of(&model->config);
    const int64_t bytes = psk_layout_bytes(&layout, capacity);
    if (model->device->precision != PSK_PRECISION_BF16)
        return bytes;
    const int64_t copies = psk_session_copies_bytes(&layout, capacity);
    int64_t sum;
    return bytes < 0 || copies < 0 || __builtin_add_overflow(bytes, copies, &sum) ? -1 : sum;
}

int64_t psk_session_bytes_at(const psk_model *model, int64_t tokens) {
    const psk_session_layout layout = psk_session_layout_of(&model->config);
    return psk_decoder_bytes(model, psk_layout_capacity(&layout, tokens));
}

/* --------------------------------------------------------------------------------------------------------- workspace
 */

static psk_status plan(psk_decoder *decoder, psk_arena *arena) {
    const psk_model_config *config = &decoder->model->config;
    const psk_sizes *s = &decoder->s;
    /* The number of keys is not known; the workspace depends on their tiles alone. */
    const psk_attention_shape shape = {1, s->H, s->Hkv, PSK_SESSION_CHUNK, INT32_MAX, s->h, s->h, s->r};
    PSK_TRY(psk_attention_plan(decoder->model->device, &config->attention, &shape, arena, &decoder->attention));
    PSK_TRY(psk_block_plan_activations(config, 1, PSK_SESSION_CHUNK, "layer", arena, &decoder->act));
    PSK_TRY(psk_block_plan_workspace(config, 1, PSK_SESSION_CHUNK, false, arena, &decoder->work));
    PSK_TRY(psk_arena_floats(arena, "activations", "x", PSK_SESSION_CHUNK * s->D, &decoder->x));
    PSK_TRY(psk_arena_floats(arena, "workspace", "folded", decoder->layout.state_floats / s->L, &decoder->folded));
    for (int kind = 0; kind < PSK_CACHES && decoder->layout.ring > 0; kind++)
        PSK_TRY(psk_arena_floats(arena, "workspace", "keys",
                                 s->Hkv * (decoder->layout.ring + PSK_SESSION_CHUNK) * decoder->layout.width[kind],
                                 &decoder->keys[kind]));
    PSK_TRY(psk_arena_reserve(arena, "data", "sessions", PSK_STEP_SESSIONS * (int64_t)sizeof(psk_step_session),
                              &decoder->step_sessions));
    return psk_arena_reserve(arena, "data", "positions", PSK_SESSION_CHUNK * (int64_t)sizeof(int32_t),
                             &decoder->positions);
}

static void release(psk_decoder *decoder) {
    psk_stepper_release(decoder);
    psk_attention_free(decoder->attention);
    psk_arena_free(decoder->arena);
    psk_free(decoder);
}

static psk_status create(psk_model *model, psk_decoder **out) {
    psk_decoder *decoder;
    psk_status status;
    PSK_TRY(psk_alloc_zero(sizeof *decoder, "the workspace of a model's sessions", (void **)&decoder));
    decoder->model = model;
    decoder->s = psk_sizes_of(&model->config);
    decoder->layout = psk_session_layout_of(&model->config);
    PSK_TRY_GOTO(status, psk_arena_create(&decoder->arena), failed);
    PSK_TRY_GOTO(status, plan(decoder, decoder->arena), failed);
    PSK_TRY_GOTO(status, psk_arena_commit(decoder->arena, PSK_FILL_NONE), failed);
    *out = decoder;
    return PSK_OK;
failed:
    release(decoder);
    return status;
}

psk_status psk_decoder_join(psk_model *model, psk_decoder **out) {
    *out = NULL;
    if (model->decoder == NULL)
        PSK_TRY(create(model, &model->decoder));
    model->decoder->sessions++;
    *out = model->decoder;
    return PSK_OK;
}

void psk_decoder_leave(psk_decoder *decoder) {
    if (decoder == NULL || --decoder->sessions > 0)
        return;
    decoder->model->decoder = NULL;
    release(decoder);
}

/* -------------------------------------------------------------------------------------------------------------- hash
 */

static psk_status hash_model(const psk_model *model, char text[PSK_MODEL_HASH_CAPACITY]) {
    json_t *object;
    char *config = NULL;
    PSK_TRY(psk_config_to_json(&model->config, &object));
    const psk_status status = psk_json_dump(object, "config", JSON_COMPACT | JSON_SORT_KEYS, &config);
    json_decref(object);
    PSK_TRY(status);
    const XXH64_hash_t seed = XXH3_64bits(config, strlen(config));
    psk_free(config);
    const XXH128_hash_t hash =
        XXH3_128bits_withSeed(model->weights, (size_t)model->params.floats * sizeof(float), seed);
    snprintf(text, PSK_MODEL_HASH_CAPACITY, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
    return PSK_OK;
}

psk_status psk_model_hash(psk_model *model, char text[PSK_MODEL_HASH_CAPACITY]) {
    text[0] = '\0';
    if (model->decoder == NULL)
        return hash_model(model, text);
    char *known = model->decoder->hash;
    if (known[0] == '\0')
        PSK_TRY(hash_model(model, known));
    memcpy(text, known, PSK_MODEL_HASH_CAPACITY);
    return PSK_OK;
}
