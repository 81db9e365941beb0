/* The parameters of a model, derived from one list (params.def): name in the file, shape, initialisation, decayed or
 * not, trained or not. Everything else (allocation, loading, saving, AdamW, reports, the pointers that the layers
 * compute with) walks the table made from it. */
#ifndef PSK_PARAMS_H
#define PSK_PARAMS_H

#include "attention/attn_sketch.h"
#include "model/config.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum psk_param_kind {
    PSK_PARAM_VECTOR,   /* LayerNorms, biases, gains: trained */
    PSK_PARAM_MATRIX,   /* trained, decayed */
    PSK_PARAM_FEATURES, /* performer's projection: saved, never changed */
    PSK_PARAM_RANDOM    /* a matrix of a random sketch: saved, never changed */
} psk_param_kind;

typedef struct psk_param {
    char name[64]; /* as in model.safetensors: "blocks.3.attn.qkv.weight" */
    int64_t dims, shape[2];
    int64_t offset, count; /* in floats, in the block of weights; offsets are multiples of 16 */
    bool decayed;          /* weight decay: matrices only */
    bool trained;          /* false: random matrices, saved and never changed */
    psk_param_kind kind;
    int64_t index;    /* j of attn.sketch.g.j */
    double mean, std; /* a new one: N(mean, std^2) */
} psk_param;

typedef struct psk_params {
    psk_param *list;
    int64_t count;        /* parameters */
    int64_t floats;       /* size of the block of weights, padding included */
    int64_t first, layer; /* layer i has the parameters first + i layer ... first + (i+1) layer - 1 */
} psk_params;

/* PSK_ERROR_ARGUMENT if the config is wrong or the sizes overflow. */
psk_status psk_params_create(const psk_model_config *config, psk_params *params);
void psk_params_free(psk_params *params);
const psk_param *psk_params_find(const psk_params *params, const char *name); /* NULL if absent */

/* Fills the block: a pure function of (config, seed), stream = psk_rng_stream(name). Padding is zeroed. */
psk_status psk_params_init(const psk_params *params, const psk_model_config *config, uint64_t seed, float *weights);

/* The parameters outside the layers and those of one layer, as pointers into a block laid out as the weights (the
 * weights themselves or their gradients); NULL where the model has no such parameter. The sketch's pointers are typed
 * apart, for its functions read weights and write gradients. */
typedef struct psk_model_pointers {
#define PSK_MODEL_PARAM(field, name, kind, rows, cols, mean, std, present) float *field;
#include "model/params.def"
} psk_model_pointers;

typedef struct psk_layer_pointers {
#define PSK_LAYER_PARAM(field, name, kind, rows, cols, mean, std, present) float *field;
#include "model/params.def"
    psk_sketch_params sketch;
    psk_sketch_grads sketch_grads;
} psk_layer_pointers;

psk_model_pointers psk_params_model(const psk_params *params, float *block);
psk_layer_pointers psk_params_layer(const psk_params *params, const psk_model_config *config, int64_t layer,
                                    float *block);

#endif
