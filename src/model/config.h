/* The configuration of a model: checks, presets, config.json (keys as GPT-2's; docs/formats.md), and the sizes that
 * follow from it. */
#ifndef PSK_CONFIG_H
#define PSK_CONFIG_H

#include "base/json.h"

/* n_kv_head with its default filled in; h; F = floor(8 D / 3) rounded down to a multiple of 8. */
int64_t psk_config_kv_heads(const psk_model_config *config);
int64_t psk_config_head_size(const psk_model_config *config);
int64_t psk_config_hidden(const psk_model_config *config);

/* All sizes of a model and what its attention is made of. */
typedef struct psk_sizes {
    int64_t V, D, L, H, Hkv, h, F;
    int64_t E;      /* rows of qkv: (H + 2 Hkv) h */
    int64_t r;      /* width of a and b: sketch_size, 0 where there is neither sketch nor features */
    bool sinusoids; /* are added to the token embedding */
    bool qk_norm;   /* one LayerNorm of q and k: polynomial, the random and learned_linear sketch, softmax if wanted */
    bool local_norms;    /* LayerNorms of q and of k for the exact local part */
    bool sketch;         /* polysketch */
    bool learned;        /* ... by the network */
    bool learned_linear; /* ... by two matrices */
    bool far_gain;       /* a gain of the sketched weights for each head */
    bool performer;
} psk_sizes;

psk_sizes psk_sizes_of(const psk_model_config *config);

/* The object of a config.json -> a checked config; `where` names the source in messages. Keys that the mechanism uses
 * must be there; position_scale (1), denominator_bias (1), far_scale (1, or 1/r^2), n_kv_head (n_head) and
 * the flags (false) have defaults. */
psk_status psk_config_from_json(const json_t *object, const char *where, psk_model_config *config);

/* *object is released by json_decref. All keys are written, so reading gives the same config. */
psk_status psk_config_to_json(const psk_model_config *config, json_t **object);

#endif
