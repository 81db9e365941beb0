#include "model/params.h"

#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Parameters start on multiples of so many floats: a cache line. */
#define PSK_PARAM_ALIGN 16

/* An entry of params.def, evaluated. */
typedef struct psk_param_entry {
    const char *name;
    psk_param_kind kind;
    int64_t rows, cols;
    double mean, std;
    bool present;
} psk_param_entry;

#define PSK_ENTRY(field, name, kind, rows, cols, mean, std, present)                                                   \
    {name, PSK_PARAM_##kind, rows, cols, mean, std, present},

/* Room for every parameter of a layer: those of the list and the matrices of the largest random sketch. */
#define PSK_COUNT_ENTRY(field, name, kind, rows, cols, mean, std, present) +1
enum {
    PSK_MODEL_ENTRIES = 0
#define PSK_MODEL_PARAM PSK_COUNT_ENTRY
#include "model/params.def"
    ,
    PSK_LAYER_ENTRIES = 0
#define PSK_LAYER_PARAM  PSK_COUNT_ENTRY
#define PSK_SKETCH_PARAM PSK_COUNT_ENTRY
#include "model/params.def"
};

static psk_status add_entry(psk_params *params, const char *prefix, const psk_param_entry *entry) {
    psk_param *param = &params->list[params->count++];
    *param = (psk_param){.dims = entry->kind == PSK_PARAM_VECTOR ? 1 : 2,
                         .shape = {entry->rows, entry->cols},
                         .offset = params->floats,
                         .decayed = entry->kind == PSK_PARAM_MATRIX,
                         .trained = entry->kind == PSK_PARAM_VECTOR || entry->kind == PSK_PARAM_MATRIX,
                         .kind = entry->kind,
                         .mean = entry->mean,
                         .std = entry->std};
    const int length = snprintf(param->name, sizeof param->name, "%s%s", prefix, entry->name);
    PSK_ASSERT(length > 0 && (size_t)length < sizeof param->name);
    (void)length;
    PSK_TRY(psk_size_mul(entry->rows, entry->cols, &param->count));
    const int64_t padded = (param->count + PSK_PARAM_ALIGN - 1) / PSK_PARAM_ALIGN * PSK_PARAM_ALIGN;
    int64_t bytes;
    PSK_TRY(psk_size_mul(params->floats + padded, sizeof(float), &bytes));
    params->floats += padded;
    return PSK_OK;
}

static psk_status add_entries(psk_params *params, const char *prefix, const psk_param_entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (entries[i].present)
            PSK_TRY(add_entry(params, prefix, &entries[i]));
    return PSK_OK;
}

static psk_status add_layer(psk_params *params, const psk_model_config *config, const psk_sizes *s, int64_t layer) {
    const psk_param_entry entries[] = {
#define PSK_LAYER_PARAM  PSK_ENTRY
#define PSK_SKETCH_PARAM PSK_ENTRY
#include "model/params.def"
    };
    char prefix[32], name[48];
    snprintf(prefix, sizeof prefix, "blocks.%lld.", (long long)layer);
    PSK_TRY(add_entries(params, prefix, entries, sizeof entries / sizeof entries[0]));
    for (int64_t j = 0; s->sketch && j < psk_sketch_matrix_count(&config->attention); j++) {
        snprintf(name, sizeof name, "attn.sketch.g.%lld", (long long)j);
        const psk_param_entry entry = {.name = name,
                                       .kind = PSK_PARAM_RANDOM,
                                       .rows = psk_sketch_matrix_rows(&config->attention, s->h, j),
                                       .cols = s->r};
        PSK_TRY(add_entry(params, prefix, &entry));
        params->list[params->count - 1].index = j;
    }
    return PSK_OK;
}

static psk_status add_all(psk_params *params, const psk_model_config *config) {
    const psk_sizes sizes = psk_sizes_of(config), *s = &sizes;
    const psk_param_entry entries[] = {
#define PSK_MODEL_PARAM PSK_ENTRY
#include "model/params.def"
    };
    PSK_TRY(add_entries(params, "", entries, sizeof entries / sizeof entries[0]));
    params->first = params->count;
    for (int64_t i = 0; i < s->L; i++)
        PSK_TRY(add_layer(params, config, s, i));
    params->layer = (params->count - params->first) / s->L;
    return PSK_OK;
}

psk_status psk_params_create(const psk_model_config *config, psk_params *params) {
    PSK_TRY(psk_model_config_check(config));
    const int64_t most = PSK_MODEL_ENTRIES + config->n_layer * (PSK_LAYER_ENTRIES + PSK_MAX_SKETCH_MATRICES);
    *params = (psk_params){0};
    PSK_TRY(psk_alloc((size_t)most * sizeof(psk_param), "the list of parameters", (void **)&params->list));
    const psk_status status = add_all(params, config);
    if (status != PSK_OK)
        psk_params_free(params);
    return status;
}

void psk_params_free(psk_params *params) {
    psk_free(params->list);
    *params = (psk_params){0};
}

const psk_param *psk_params_find(const psk_params *params, const char *name) {
    for (int64_t i = 0; i < params->count; i++)
        if (strcmp(params->list[i].name, name) == 0)
            return &params->list[i];
    return NULL;
}

static double dot(int64_t n, const float *x, const float *y) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

static void add_scaled(int64_t n, double alpha, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)((double)y[i] + alpha * (double)x[i]);
}

/* Rows that are Gaussian one by one, but orthogonal within each run of h rows: the estimate of the softmax kernel
 * varies less (Choromanski et al. 2021, section 3.3). Gram-Schmidt, twice for accuracy; each row gets back its own
 * length, which is independent of its direction. */
static void orthogonalise(int64_t rows, int64_t h, float *x) {
    for (int64_t i = 0; i < rows; i++) {
        float *row = x + i * h;
        const double length = sqrt(dot(h, row, row));
        for (int round = 0; round < 2; round++)
            for (int64_t j = i / h * h; j < i; j++)
                add_scaled(h, -dot(h, x + j * h, row) / dot(h, x + j * h, x + j * h), x + j * h, row);
        add_scaled(h, length / sqrt(dot(h, row, row)) - 1, row, row);
    }
}

static psk_status init_param(const psk_param *param, const psk_model_config *config, uint64_t seed, float *x) {
    const uint64_t stream = psk_rng_stream(param->name);
    if (param->kind == PSK_PARAM_RANDOM)
        return psk_sketch_random_init(&config->attention, psk_config_head_size(config), param->index, seed, stream, x);
    psk_rng_fill_normal(x, param->count, (float)param->std, seed, stream);
    if (param->kind == PSK_PARAM_FEATURES)
        orthogonalise(param->shape[0], param->shape[1], x);
    if (param->mean != 0)
        for (int64_t i = 0; i < param->count; i++)
            x[i] += (float)param->mean;
    return PSK_OK;
}

psk_status psk_params_init(const psk_params *params, const psk_model_config *config, uint64_t seed, float *weights) {
    memset(weights, 0, (size_t)params->floats * sizeof(float));
    for (int64_t i = 0; i < params->count; i++)
        PSK_TRY(init_param(&params->list[i], config, seed, weights + params->list[i].offset));
    return PSK_OK;
}

psk_model_pointers psk_params_model(const psk_params *params, float *block) {
    const psk_param *param = params->list;
    psk_model_pointers p = {0};
#define PSK_MODEL_PARAM(field, name, kind, rows, cols, mean, std, present) p.field = block + (param++)->offset;
#include "model/params.def"
    return p;
}

psk_layer_pointers psk_params_layer(const psk_params *params, const psk_model_config *config, int64_t layer,
                                    float *block) {
    const psk_sizes sizes = psk_sizes_of(config), *s = &sizes;
    const psk_param *param = params->list + params->first + layer * params->layer;
    psk_layer_pointers p = {0};
#define PSK_LAYER_PARAM(field, name, kind, rows, cols, mean, std, present)                                             \
    if (present)                                                                                                       \
        p.field = block + (param++)->offset;
#define PSK_SKETCH_PARAM(field, name, kind, rows, cols, mean, std, present)                                            \
    if (present)                                                                                                       \
        p.sketch.field = p.sketch_grads.field = block + (param++)->offset;
#include "model/params.def"
    for (int64_t j = 0; s->sketch && j < psk_sketch_matrix_count(&config->attention); j++)
        p.sketch.g[j] = block + (param++)->offset;
    return p;
}
