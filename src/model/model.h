/* The model on the operation table: written once, for every device.
 *
 * psk_model holds the weights; a psk_pass holds everything else that a forward or a backward of fixed sizes needs
 * (activations, workspace), planned in one arena before the first step. */
#ifndef PSK_MODEL_H
#define PSK_MODEL_H

#include "base/memory.h"
#include "model/block.h"

#include <stdbool.h>

struct psk_model {
    psk_device *device;
    psk_model_config config;
    psk_params params;           /* names, shapes, offsets (params.h) */
    float *weights;              /* all parameters, one block: parameter p starts at weights + p.offset */
    struct psk_decoder *decoder; /* what its sessions share (infer/decoder.h); NULL while it has none */
};

/* A model whose weights are all 0, to be filled by the caller. */
psk_status psk_model_create_empty(psk_device *device, const psk_model_config *config, psk_model **out);

/* All weights from a model.safetensors. Errors: FILE; FORMAT for what is damaged, missing, of another shape, or of a
 * name that the model does not have. */
psk_status psk_model_read_weights(psk_model *model, const char *path);

typedef struct psk_pass_options {
    int64_t B, N;
    bool training;  /* backward will be called */
    bool recompute; /* keep only the layers' inputs */
    float dropout;  /* on embeddings, attention output, MLP output, in psk_pass_loss_backward only; 0: none */
    psk_fill fill;  /* of psk_pass_create's memory: NaN in tests */
} psk_pass_options;

/* One micro-batch; borrowed during the call. */
typedef struct psk_batch {
    const int32_t *tokens;     /* B x N, checked */
    const int32_t *targets;    /* B x N, checked; < 0: not counted. NULL where no loss is asked for */
    const int32_t *positions;  /* B x N; NULL: 0 ... N-1 in each row */
    const int64_t *cu_seqlens; /* as in psk_attention_tensors; NULL: a row is a document */
    int64_t documents;
    uint64_t dropout_seed; /* differs for every micro-batch of a run */
} psk_batch;

typedef struct psk_pass psk_pass;

/* Plans (and with psk_pass_create takes) what a pass needs. Categories: "activations", "workspace", "data" (positions).
 * `device` is not touched by planning. */
psk_status psk_pass_plan(const psk_model_config *config, psk_device *device, const psk_pass_options *options,
                         psk_arena *arena, psk_pass **out);
psk_status psk_pass_create(psk_model *model, const psk_pass_options *options, psk_pass **out);
void psk_pass_free(psk_pass *pass); /* accepts NULL */

/* Errors of the following: ARGUMENT for a token or target outside the vocabulary, or wrong cu_seqlens.
 * losses[t] in nats (0 where the target is < 0). losses: B x N. */
psk_status psk_pass_loss(psk_pass *pass, const psk_model *model, const psk_batch *batch, float *losses);

/* logits: B x N x V. */
psk_status psk_pass_logits(psk_pass *pass, const psk_model *model, const psk_batch *batch, float *logits);

/* losses as above and grads += scale * d(sum of losses)/d(weights); grads: laid out as model->weights. The caller
 * passes scale = 1 / (counted targets of the step), not 0. Chunked over tokens: never an N x V matrix. The pass must be
 * a training one. */
psk_status psk_pass_loss_backward(psk_pass *pass, const psk_model *model, const psk_batch *batch, float scale,
                                  float *losses, float *grads);

/* logits = normed wte^T + lm_head.bias.   normed: rows x D, LN_f(x); logits: rows x V */
psk_status psk_head_logits(psk_device *device, const psk_sizes *s, const psk_model_pointers *weights, int64_t rows,
                           const float *normed, float *logits);

#endif
