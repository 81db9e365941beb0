/* One step of training: clip by the global norm, AdamW on every trained parameter, decay on matrices only. */
#ifndef PSK_OPTIMIZER_H
#define PSK_OPTIMIZER_H

#include "model/model.h"

typedef struct psk_optimizer_settings {
    double lr, beta1, beta2, eps, weight_decay;
    double grad_clip; /* largest global norm; 0: off */
} psk_optimizer_settings;

psk_optimizer_settings psk_optimizer_settings_of(const psk_train_options *options, double rate);

/* *norm = square root of the sum of squares of all gradients of trained parameters. One that is not finite:
 * PSK_ERROR_NUMERIC naming the tensor. */
psk_status psk_gradient_norm(const psk_model *model, const float *grads, double *norm);

/* Weights, m and v of the model after step number `step` (counting from 1) with the gradients of the mean loss; all are
 * laid out as model->weights, m and v are 0 before the first step. *grad_norm (may be NULL): the global norm before
 * clipping. A gradient that is not finite: PSK_ERROR_NUMERIC as above, and nothing has changed. */
psk_status psk_optimizer_step(psk_model *model, const float *grads, float *m, float *v,
                              const psk_optimizer_settings *settings, int64_t step, double *grad_norm);

#endif
