/* Attention as the public header has it: names, checks, workspace, and the way from tensors to the groups of the core.
 */
#include "attention/attention.h"

#include "attention/attn_causal.h"
#include "attention/attn_parts.h"

#include <math.h>

/* The list of mechanisms. */
typedef psk_status attention_pass(const psk_attention *at, const psk_attention_views *views);
static const struct mechanism {
    const char *name;
    attention_pass *forward, *backward;
} mechanisms[] = {
    [PSK_SOFTMAX] = {"softmax", psk_softmax_forward, psk_softmax_backward},
    [PSK_POLYNOMIAL] = {"polynomial", psk_polynomial_forward, psk_polynomial_backward},
    [PSK_POLYSKETCH] = {"polysketch", psk_causal_forward, psk_causal_backward},
    [PSK_PERFORMER] = {"performer", psk_causal_forward, psk_causal_backward},
};

static const char *const sketch_names[] = {
    [PSK_SKETCH_RANDOM] = "random",
    [PSK_SKETCH_RANDOM_HADAMARD] = "random_hadamard",
    [PSK_SKETCH_LEARNED] = "learned",
    [PSK_SKETCH_LEARNED_LINEAR] = "learned_linear",
};

static const char *const local_names[] = {
    [PSK_LOCAL_NONE] = "none", [PSK_LOCAL_BLOCK] = "block", [PSK_LOCAL_WINDOW] = "window"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

const char *psk_mechanism_name(psk_mechanism mechanism) {
    return (size_t)mechanism < COUNT(mechanisms) ? mechanisms[mechanism].name : NULL;
}

const char *psk_sketch_name(psk_sketch sketch) {
    return (size_t)sketch < COUNT(sketch_names) ? sketch_names[sketch] : NULL;
}

const char *psk_local_name(psk_local local) {
    return (size_t)local < COUNT(local_names) ? local_names[local] : NULL;
}

psk_attention_config psk_attention_config_default(void) {
    return (psk_attention_config){.mechanism = PSK_POLYSKETCH,
                                  .sketch = PSK_SKETCH_LEARNED_LINEAR,
                                  .local = PSK_LOCAL_WINDOW,
                                  .degree = 4,
                                  .sketch_size = 32,
                                  .block_size = 256,
                                  .denominator_bias = 1.0f,
                                  .far_scale = 1.0f,
                                  .direction = PSK_CAUSAL};
}

bool psk_attention_uses_ab(const psk_attention_config *config) {
    return config->mechanism == PSK_POLYSKETCH || config->mechanism == PSK_PERFORMER;
}

bool psk_attention_has_local(const psk_attention_config *config) {
    return config->local_only || (config->mechanism == PSK_POLYSKETCH && config->local != PSK_LOCAL_NONE);
}

bool psk_attention_uses_qk(const psk_attention_config *config) {
    return !psk_attention_uses_ab(config) || psk_attention_has_local(config);
}

int64_t psk_attention_state_rows(const psk_attention_config *config) {
    const int64_t r = config->sketch_size;
    if (!psk_attention_uses_ab(config))
        return 0;
    return config->mechanism == PSK_POLYSKETCH ? r * (r + 1) / 2 : r;
}

int64_t psk_attention_tail(const psk_attention_config *config, int64_t Nk) {
    const int64_t b = config->block_size;
    if (!psk_attention_has_local(config))
        return psk_attention_uses_ab(config) ? 0 : Nk;
    if (config->local == PSK_LOCAL_BLOCK)
        return Nk % b;
    return Nk < b ? Nk : b + Nk % b;
}

int psk_attention_reads_ab(const psk_attention_config *config, int64_t Nk) {
    if (!psk_attention_uses_ab(config))
        return 0;
    return !psk_attention_has_local(config) || Nk > config->block_size * (config->local == PSK_LOCAL_WINDOW ? 2 : 1);
}

/* Largest size of anything: r (r+1) / 2 and products of two sizes stay far inside int64_t. */
#define SIZE_LIMIT (INT64_C(1) << 31)

static psk_status check_size(const char *field, int64_t value) {
    if (value < 1 || value > SIZE_LIMIT)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: %s is %lld, must be 1 to %lld", field, (long long)value,
                        (long long)SIZE_LIMIT);
    return PSK_OK;
}

static psk_status check_factor(const char *field, float value) {
    if (!(value >= 0.0f) || isinf(value))
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: %s is %g, must be a finite number >= 0", field, (double)value);
    return PSK_OK;
}

static psk_status check_local(const psk_attention_config *config) {
    if ((config->mechanism == PSK_POLYSKETCH || config->local_only) && psk_local_name(config->local) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: local is %d, there is none", (int)config->local);
    if (config->local_only && psk_attention_uses_ab(config))
        return psk_fail(PSK_ERROR_UNSUPPORTED,
                        "attention: local_only is %d, but %s also sees what is far; it is for softmax and polynomial",
                        config->local_only, psk_mechanism_name(config->mechanism));
    if (config->local_only && config->local == PSK_LOCAL_NONE)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: local_only is %d and local is none, must be block or window",
                        config->local_only);
    return PSK_OK;
}

psk_status psk_attention_config_check(const psk_attention_config *config) {
    if (psk_mechanism_name(config->mechanism) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: mechanism is %d, there is none", (int)config->mechanism);
    if (config->direction != PSK_CAUSAL && config->direction != PSK_BIDIRECTIONAL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: direction is %d, there is none", (int)config->direction);
    PSK_TRY(check_local(config));
    if (psk_attention_uses_ab(config))
        PSK_TRY(check_size("sketch_size", config->sketch_size));
    if (psk_attention_uses_ab(config) || config->local_only)
        PSK_TRY(check_size("block_size", config->block_size));
    if (config->mechanism == PSK_POLYSKETCH) {
        if (psk_sketch_name(config->sketch) == NULL)
            return psk_fail(PSK_ERROR_ARGUMENT, "attention: sketch is %d, there is none", (int)config->sketch);
        PSK_TRY(check_factor("far_scale", config->far_scale));
    }
    if (config->mechanism == PSK_POLYNOMIAL || config->mechanism == PSK_POLYSKETCH) {
        if (config->degree < 2 || config->degree > PSK_MOST_DEGREE || config->degree % 2 != 0)
            return psk_fail(PSK_ERROR_ARGUMENT, "attention: degree is %lld, must be even, from 2 to %d",
                            (long long)config->degree, PSK_MOST_DEGREE);
        PSK_TRY(check_factor("denominator_bias", config->denominator_bias));
    }
    if (psk_attention_has_local(config) && config->direction == PSK_BIDIRECTIONAL)
        return psk_fail(PSK_ERROR_UNSUPPORTED,
                        "attention: local is %s and direction is bidirectional; a local part is causal, use local none",
                        psk_local_name(config->local));
    return PSK_OK;
}

static psk_status check_shape(const psk_attention_config *config, const psk_attention_shape *shape) {
    const struct {
        const char *field;
        int64_t value;
    } sizes[] = {{"B", shape->B},   {"H", shape->H}, {"Hkv", shape->Hkv}, {"Nq", shape->Nq},
                 {"Nk", shape->Nk}, {"h", shape->h}, {"d", shape->d}};
    for (size_t i = 0; i < COUNT(sizes); i++)
        PSK_TRY(check_size(sizes[i].field, sizes[i].value));
    if (shape->H % shape->Hkv != 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: H is %lld, must be a multiple of Hkv, which is %lld",
                        (long long)shape->H, (long long)shape->Hkv);
    const int64_t r = psk_attention_uses_ab(config) ? config->sketch_size : 0;
    if (shape->r != r)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: r is %lld, must be %lld as the configuration has it",
                        (long long)shape->r, (long long)r);
    if (config->direction == PSK_CAUSAL && shape->Nq > shape->Nk)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "attention: Nq is %lld, must be at most Nk, which is %lld: queries are the last keys",
                        (long long)shape->Nq, (long long)shape->Nk);
    return PSK_OK;
}

/* The whole of every tensor must be countable in bytes, and so must states and the features of a tile of rows. */
static psk_status check_products(const psk_attention_config *config, const psk_attention_shape *shape) {
    const int64_t width = shape->h + shape->d + shape->r, rows = shape->Nq > shape->Nk ? shape->Nq : shape->Nk;
    const int64_t m = psk_attention_state_rows(config), tile = PSK_QUERY_TILE + PSK_KEY_TILE + PSK_FOLD_TILE;
    int64_t product;
    PSK_TRY(psk_size_mul(shape->B, shape->H, &product));
    PSK_TRY(psk_size_mul(product, m, &product));
    PSK_TRY(psk_size_mul(product, shape->d + tile, &product));
    PSK_TRY(psk_size_mul(product, (int64_t)sizeof(float), &product));
    PSK_TRY(psk_size_mul(shape->B, shape->H, &product));
    PSK_TRY(psk_size_mul(product, rows, &product));
    PSK_TRY(psk_size_mul(product, width, &product));
    return psk_size_mul(product, (int64_t)sizeof(float), &product);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Plans the buffers of struct psk_attention for `groups` groups, and only counts their floats if arena is NULL. */
static psk_status plan_workspace(psk_attention *at, int64_t groups, psk_arena *arena, int64_t *floats) {
    const psk_attention_shape *shape = &at->shape;
    const int64_t rows = smaller(shape->Nq, PSK_QUERY_TILE), keys = smaller(shape->Nk, PSK_KEY_TILE);
    const int64_t fold = smaller(shape->Nk, PSK_FOLD_TILE), psi_rows = rows > fold ? rows : fold;
    const bool packed = at->config.mechanism == PSK_POLYSKETCH;
    const struct {
        const char *name;
        float **where;
        int64_t n;
    } buffers[] = {
        {"attention.o1", &at->o1, at->rep * rows * (shape->d + 1)},
        {"attention.v1", &at->v1, keys * (shape->d + 1)},
        {"attention.weights", &at->weights, rows * keys},
        {"attention.dweights", &at->dweights, rows * keys},
        {"attention.row_max", &at->row_max, rows},
        {"attention.row_sum", &at->row_sum, rows},
        {"attention.features", &at->features, packed ? psi_rows * at->m : 0},
        {"attention.state", &at->state, at->m * (shape->d + 1)},
    };
    *floats = 0;
    for (size_t i = 0; i < COUNT(buffers); i++) {
        int64_t n;
        PSK_TRY(psk_size_mul(buffers[i].n, groups, &n));
        *floats += n;
        if (arena != NULL)
            PSK_TRY(psk_arena_floats(arena, "workspace", buffers[i].name, n, buffers[i].where));
    }
    return PSK_OK;
}

/* As many groups at once as PSK_WORKSPACE_LIMIT allows, in slabs of nearly the same size. */
static psk_status choose_slab(psk_attention *at) {
    const int64_t groups = at->shape.B * at->shape.Hkv;
    int64_t floats, bytes;
    PSK_TRY(plan_workspace(at, 1, NULL, &floats));
    PSK_TRY(psk_size_mul(floats, (int64_t)sizeof(float), &bytes));
    const int64_t most = bytes < PSK_WORKSPACE_LIMIT ? smaller(PSK_WORKSPACE_LIMIT / bytes, groups) : 1;
    const int64_t slabs = (groups + most - 1) / most;
    at->slab = (groups + slabs - 1) / slabs;
    return PSK_OK;
}

/* Floats that the fused operations of the device need for this attention, -1 if they do not do it. */
static psk_status fused_floats(const psk_attention *at, int64_t *floats) {
    const psk_attention_shape *shape = &at->shape;
    const psk_attention_views widths = {
        .q.width = shape->h, .k.width = shape->h, .v.width = shape->d, .a.width = shape->r, .b.width = shape->r};
    int64_t backward = -1;
    *floats = -1;
    if (at->device == NULL || at->device->ops->fused_attention_forward == NULL ||
        at->device->ops->fused_attention_backward == NULL)
        return PSK_OK;
    PSK_RUN(at->device, fused_attention_forward, .config = &at->config, .rep = at->rep, .views = &widths,
            .workspace_floats = floats);
    PSK_RUN(at->device, fused_attention_backward, .config = &at->config, .rep = at->rep, .views = &widths,
            .workspace_floats = &backward);
    *floats = *floats < 0 || backward < 0 ? -1 : *floats > backward ? *floats : backward;
    return PSK_OK;
}

/* The workspace of the fused form, or of the composed one. */
static psk_status plan_form(psk_attention *at, psk_arena *arena) {
    int64_t floats;
    PSK_TRY(fused_floats(at, &floats));
    if (floats >= 0)
        return psk_arena_floats(arena, "workspace", "attention.fused", floats, &at->fused);
    PSK_TRY(choose_slab(at));
    return plan_workspace(at, at->slab, arena, &floats);
}

psk_status psk_attention_plan(psk_device *device, const psk_attention_config *config, const psk_attention_shape *shape,
                              psk_arena *arena, psk_attention **out) {
    psk_attention *at;
    psk_status status;
    *out = NULL;
    PSK_TRY(psk_attention_config_check(config));
    PSK_TRY(check_shape(config, shape));
    PSK_TRY(check_products(config, shape));
    PSK_TRY(psk_alloc_zero(sizeof *at, "attention", (void **)&at));
    at->device = device;
    at->config = *config;
    at->shape = *shape;
    at->rep = shape->H / shape->Hkv;
    at->m = psk_attention_state_rows(config);
    at->bytes = -psk_arena_bytes(arena);
    PSK_TRY_GOTO(status, plan_form(at, arena), failed);
    at->bytes += psk_arena_bytes(arena);
    *out = at;
    return PSK_OK;
failed:
    psk_free(at);
    return status;
}

psk_status psk_attention_create(psk_device *device, const psk_attention_config *config,
                                const psk_attention_shape *shape, psk_attention **out) {
    psk_arena *arena;
    psk_status status;
    *out = NULL;
    PSK_TRY(psk_arena_create(&arena));
    PSK_TRY_GOTO(status, psk_attention_plan(device, config, shape, arena, out), failed);
    PSK_TRY_GOTO(status, psk_arena_commit(arena, PSK_FILL_NONE), failed);
    (*out)->arena = arena;
    return PSK_OK;
failed:
    psk_attention_free(*out);
    *out = NULL;
    psk_arena_free(arena);
    return status;
}

void psk_attention_free(psk_attention *attention) {
    if (attention == NULL)
        return;
    psk_arena_free(attention->arena);
    psk_free(attention);
}

int64_t psk_attention_bytes(const psk_attention *attention) {
    return attention->bytes;
}

/* Groups first ... first + groups - 1 of a call. */
static psk_attention_views slab_of(const psk_attention *at, const psk_attention_views *views, int64_t first,
                                   int64_t groups) {
    psk_attention_views slab = *views;
    psk_rows *rows[] = {&slab.q,    &slab.k,  &slab.v,  &slab.a,  &slab.b,  &slab.out, &slab.normaliser,
                        &slab.dout, &slab.dq, &slab.dk, &slab.dv, &slab.da, &slab.db};
    const int64_t state_offset = first * at->m * (at->shape.d + 1);
    slab.groups = groups;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i]->data != NULL)
            rows[i]->data += first * rows[i]->group_stride;
    slab.state0 = views->state0 != NULL ? views->state0 + state_offset : NULL;
    slab.state1 = views->state1 != NULL ? views->state1 + state_offset : NULL;
    slab.dstate0 = views->dstate0 != NULL ? views->dstate0 + state_offset : NULL;
    slab.dstate1 = views->dstate1 != NULL ? views->dstate1 + state_offset : NULL;
    return slab;
}

static psk_status each_slab(const psk_attention *at, const psk_attention_views *views, attention_pass *pass) {
    PSK_ASSERT(views->Nq >= 0 && views->Nq <= at->shape.Nq && views->Nk >= 0 && views->Nk <= at->shape.Nk);
    PSK_ASSERT(at->config.direction == PSK_BIDIRECTIONAL || views->Nq <= views->Nk);
    for (int64_t first = 0; first < views->groups; first += at->slab) {
        const psk_attention_views slab = slab_of(at, views, first, smaller(views->groups - first, at->slab));
        PSK_TRY(pass(at, &slab));
    }
    return PSK_OK;
}

psk_status psk_attention_core_forward(const psk_attention *attention, const psk_attention_views *views) {
    if (attention->fused != NULL) {
        PSK_RUN(attention->device, fused_attention_forward, .config = &attention->config, .rep = attention->rep,
                .views = views, .workspace = attention->fused);
        return PSK_OK;
    }
    return each_slab(attention, views, mechanisms[attention->config.mechanism].forward);
}

psk_status psk_attention_core_backward(const psk_attention *attention, const psk_attention_views *views) {
    if (attention->fused != NULL) {
        PSK_RUN(attention->device, fused_attention_backward, .config = &attention->config, .rep = attention->rep,
                .views = views, .workspace = attention->fused);
        return PSK_OK;
    }
    return each_slab(attention, views, mechanisms[attention->config.mechanism].backward);
}

/* Which tensors a call must have and which it must not have. */
static psk_status check_tensor(const char *name, const void *tensor, bool needed) {
    if (needed && tensor == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: tensor %s is NULL, this mechanism needs it", name);
    return PSK_OK;
}

static psk_status check_state(const psk_attention *at, const char *name, const void *state, bool packed) {
    if (state != NULL && at->m == 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: %s is given, but %s attention has no state", name,
                        psk_mechanism_name(at->config.mechanism));
    if (state != NULL && packed)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: %s is given with cu_seqlens; documents start without a state",
                        name);
    return PSK_OK;
}

static psk_status check_documents(const psk_attention_shape *shape, const psk_attention_tensors *tensors) {
    const int64_t *cu = tensors->cu_seqlens, N = shape->Nq, end = shape->B * N;
    if (shape->Nq != shape->Nk)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: cu_seqlens needs Nq == Nk, but they are %lld and %lld",
                        (long long)shape->Nq, (long long)shape->Nk);
    if (tensors->documents < shape->B || tensors->documents > end)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention: documents is %lld, must be %lld (rows) to %lld (tokens)",
                        (long long)tensors->documents, (long long)shape->B, (long long)end);
    if (cu[0] != 0 || cu[tensors->documents] != end)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "attention: cu_seqlens goes from %lld to %lld, must go from 0 to B Nq = %lld", (long long)cu[0],
                        (long long)cu[tensors->documents], (long long)end);
    for (int64_t i = 0; i < tensors->documents; i++) {
        if (cu[i + 1] <= cu[i])
            return psk_fail(PSK_ERROR_ARGUMENT, "attention: cu_seqlens[%lld] is %lld after %lld, must increase",
                            (long long)i + 1, (long long)cu[i + 1], (long long)cu[i]);
        if (cu[i + 1] > (cu[i] / N + 1) * N)
            return psk_fail(PSK_ERROR_ARGUMENT,
                            "attention: the document from %lld to %lld (cu_seqlens[%lld]) crosses the end of a row of "
                            "Nq = %lld; every multiple of Nq must be a boundary",
                            (long long)cu[i], (long long)cu[i + 1], (long long)i + 1, (long long)N);
    }
    return PSK_OK;
}

static psk_status check_forward(const psk_attention *at, const psk_attention_tensors *t) {
    const bool qk = psk_attention_uses_qk(&at->config), ab = psk_attention_uses_ab(&at->config);
    const bool packed = t->cu_seqlens != NULL;
    PSK_TRY(check_tensor("q", t->q, qk));
    PSK_TRY(check_tensor("k", t->k, qk));
    PSK_TRY(check_tensor("v", t->v, true));
    PSK_TRY(check_tensor("a", t->a, ab));
    PSK_TRY(check_tensor("b", t->b, ab));
    PSK_TRY(check_tensor("out", t->out, true));
    PSK_TRY(check_tensor("normaliser", t->normaliser, true));
    PSK_TRY(check_state(at, "state0", t->state0, packed));
    PSK_TRY(check_state(at, "state1", t->state1, packed));
    return packed ? check_documents(&at->shape, t) : PSK_OK;
}

static psk_status check_backward(const psk_attention *at, const psk_attention_tensors *t) {
    const bool qk = psk_attention_uses_qk(&at->config), ab = psk_attention_uses_ab(&at->config);
    PSK_TRY(check_forward(at, t));
    PSK_TRY(check_tensor("dout", t->dout, true));
    PSK_TRY(check_tensor("dq", t->dq, qk));
    PSK_TRY(check_tensor("dk", t->dk, qk));
    PSK_TRY(check_tensor("dv", t->dv, true));
    PSK_TRY(check_tensor("da", t->da, ab));
    PSK_TRY(check_tensor("db", t->db, ab));
    PSK_TRY(check_state(at, "dstate1", t->dstate1, t->cu_seqlens != NULL));
    return check_state(at, "dstate0", t->dstate0, t->cu_seqlens != NULL);
}

/* Views of the part of a tensor that starts at row `first` of batch row `batch`. Only the core's outputs are written
 * through them: the const of an input ends here. */
static psk_rows query_rows(const psk_attention_shape *shape, const float *x, int64_t width, int64_t batch,
                           int64_t first) {
    const int64_t head = shape->Nq * width, group = shape->H / shape->Hkv * head;
    float *data = x != NULL ? (float *)x + batch * shape->H * head + first * width : NULL;
    return (psk_rows){data, group, head, width};
}

static psk_rows key_rows(const psk_attention_shape *shape, const float *x, int64_t width, int64_t batch,
                         int64_t first) {
    const int64_t head = shape->Nk * width;
    float *data = x != NULL ? (float *)x + batch * shape->Hkv * head + first * width : NULL;
    return (psk_rows){data, head, head, width};
}

static psk_attention_views views_of(const psk_attention *at, const psk_attention_tensors *t, int64_t batch,
                                    int64_t first) {
    const psk_attention_shape *s = &at->shape;
    return (psk_attention_views){
        .q = query_rows(s, t->q, s->h, batch, first),
        .k = key_rows(s, t->k, s->h, batch, first),
        .v = key_rows(s, t->v, s->d, batch, first),
        .a = query_rows(s, t->a, s->r, batch, first),
        .b = key_rows(s, t->b, s->r, batch, first),
        .state0 = t->state0,
        .out = query_rows(s, t->out, s->d, batch, first),
        .normaliser = query_rows(s, t->normaliser, 1, batch, first),
        .state1 = t->state1,
        .dout = query_rows(s, t->dout, s->d, batch, first),
        .dstate1 = t->dstate1,
        .dq = query_rows(s, t->dq, s->h, batch, first),
        .dk = key_rows(s, t->dk, s->h, batch, first),
        .dv = key_rows(s, t->dv, s->d, batch, first),
        .da = query_rows(s, t->da, s->r, batch, first),
        .db = key_rows(s, t->db, s->r, batch, first),
        .dstate0 = t->dstate0,
    };
}

typedef psk_status core_pass(const psk_attention *at, const psk_attention_views *views);

/* Without cu_seqlens all B Hkv groups at once; with it every document on its own. */
static psk_status each_document(const psk_attention *at, const psk_attention_tensors *tensors, core_pass *pass) {
    const psk_attention_shape *shape = &at->shape;
    if (tensors->cu_seqlens == NULL) {
        psk_attention_views views = views_of(at, tensors, 0, 0);
        views.groups = shape->B * shape->Hkv;
        views.Nq = shape->Nq;
        views.Nk = shape->Nk;
        return pass(at, &views);
    }
    for (int64_t i = 0; i < tensors->documents; i++) {
        const int64_t start = tensors->cu_seqlens[i], length = tensors->cu_seqlens[i + 1] - start;
        psk_attention_views views = views_of(at, tensors, start / shape->Nq, start % shape->Nq);
        views.groups = shape->Hkv;
        views.Nq = views.Nk = length;
        PSK_TRY(pass(at, &views));
    }
    return PSK_OK;
}

psk_status psk_attention_forward(psk_attention *attention, const psk_attention_tensors *tensors) {
    PSK_TRY(check_forward(attention, tensors));
    return each_document(attention, tensors, psk_attention_core_forward);
}

psk_status psk_attention_backward(psk_attention *attention, const psk_attention_tensors *tensors) {
    const psk_attention_shape *s = &attention->shape;
    PSK_TRY(check_backward(attention, tensors));
    const int64_t queries = s->B * s->H * s->Nq, keys = s->B * s->Hkv * s->Nk;
    const bool qk = psk_attention_uses_qk(&attention->config), ab = psk_attention_uses_ab(&attention->config);
    const struct {
        float *gradient;
        int64_t n;
    } gradients[] = {{tensors->dq, qk ? queries * s->h : 0},
                     {tensors->dk, qk ? keys * s->h : 0},
                     {tensors->dv, keys * s->d},
                     {tensors->da, ab ? queries * s->r : 0},
                     {tensors->db, ab ? keys * s->r : 0}};
    for (size_t i = 0; i < COUNT(gradients); i++) /* the core accumulates */
        PSK_RUN(attention->device, fill, .n = gradients[i].n, .x = gradients[i].gradient, .value = 0.0f);
    return each_document(attention, tensors, psk_attention_core_backward);
}
