/* One optimiser step: gradients of its micro-batches, then AdamW. What training and its measurement share. */
#ifndef PSK_STEP_H
#define PSK_STEP_H

#include "model/model.h"
#include "train/optimizer.h"

typedef struct psk_step {
    psk_model *model; /* borrowed */
    psk_pass *pass;
    float *grads;  /* laid out as model->weights, like m and v */
    float *m, *v;  /* moments of AdamW */
    float *losses; /* B x N */
    int64_t B, N;
} psk_step;

/* Sizes, recomputation and dropout of a training pass, as the options say. */
psk_pass_options psk_step_pass_options(const psk_train_options *options);

/* psk_batch.dropout_seed of the micro-batch of this number, counted through all steps of a run with this seed. */
uint64_t psk_step_dropout_seed(uint64_t seed, uint64_t micro);

/* Plans everything of a step (categories "gradients", "optimizer", "activations", "workspace", "data") in the arena.
 * psk_step_release frees what is not in it; it accepts an empty step. */
psk_status psk_step_plan(psk_model *model, const psk_pass_options *options, psk_arena *arena, psk_step *out);
void psk_step_release(psk_step *step);

psk_status psk_step_reset_moments(psk_step *step); /* m = v = 0 */
psk_status psk_step_begin(psk_step *step);         /* grads = 0 */

/* grads += scale d(sum of losses); *sum += the losses. */
psk_status psk_step_add(psk_step *step, const psk_batch *batch, float scale, double *sum);

/* Names the first tensor with a number that is not finite, weights before gradients: "weight wte.weight", "gradient of
 * wte.weight"; "no tensor" if all are finite. */
psk_status psk_step_find_bad(const psk_step *step, char *name, size_t capacity);

#endif
