#include "train/step.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>

psk_pass_options psk_step_pass_options(const psk_train_options *options) {
    return (psk_pass_options){.B = options->batch_size,
                              .N = options->context,
                              .training = true,
                              .recompute = options->recompute != 0,
                              .dropout = (float)options->dropout};
}

uint64_t psk_step_dropout_seed(uint64_t seed, uint64_t micro) {
    uint32_t words[4];
    psk_philox(seed, psk_rng_stream("dropout"), micro, words);
    return (uint64_t)words[1] << 32 | words[0];
}

psk_status psk_step_plan(psk_model *model, const psk_pass_options *options, psk_arena *arena, psk_step *out) {
    const int64_t floats = model->params.floats;
    int64_t tokens;
    *out = (psk_step){.model = model, .B = options->B, .N = options->N};
    PSK_TRY(psk_size_mul(options->B, options->N, &tokens));
    PSK_TRY(psk_arena_floats(arena, "gradients", "gradients", floats, &out->grads));
    PSK_TRY(psk_arena_floats(arena, "optimizer", "m", floats, &out->m));
    PSK_TRY(psk_arena_floats(arena, "optimizer", "v", floats, &out->v));
    PSK_TRY(psk_arena_floats(arena, "data", "losses", tokens, &out->losses));
    return psk_pass_plan(&model->config, model->device, options, arena, &out->pass);
}

void psk_step_release(psk_step *step) {
    psk_pass_free(step->pass);
    *step = (psk_step){0};
}

static psk_status clear(const psk_step *step, float *x) {
    PSK_RUN(step->model->device, fill, .n = step->model->params.floats, .x = x, .value = 0);
    return PSK_OK;
}

psk_status psk_step_reset_moments(psk_step *step) {
    PSK_TRY(clear(step, step->m));
    return clear(step, step->v);
}

psk_status psk_step_begin(psk_step *step) {
    return clear(step, step->grads);
}

psk_status psk_step_add(psk_step *step, const psk_batch *batch, float scale, double *sum) {
    PSK_TRY(psk_pass_loss_backward(step->pass, step->model, batch, scale, step->losses, step->grads));
    for (int64_t i = 0; i < step->B * step->N; i++)
        *sum += (double)step->losses[i];
    return PSK_OK;
}

/* The first tensor of a block laid out as the weights whose sum of squares is not finite in float64; NULL if none. */
static psk_status find_bad_in(const psk_step *step, const float *block, const psk_param **bad) {
    const psk_params *params = &step->model->params;
    *bad = NULL;
    for (int64_t i = 0; i < params->count && !*bad; i++) {
        double sum;
        PSK_RUN(step->model->device, sum_squares, .n = params->list[i].count, .x = block + params->list[i].offset,
                .out = &sum);
        if (!isfinite(sum))
            *bad = &params->list[i];
    }
    return PSK_OK;
}

psk_status psk_step_find_bad(const psk_step *step, char *name, size_t capacity) {
    const psk_param *weight, *gradient = NULL;
    PSK_TRY(find_bad_in(step, step->model->weights, &weight));
    if (!weight)
        PSK_TRY(find_bad_in(step, step->grads, &gradient));
    if (weight)
        snprintf(name, capacity, "weight %s", weight->name);
    else if (gradient)
        snprintf(name, capacity, "gradient of %s", gradient->name);
    else
        snprintf(name, capacity, "no tensor");
    return PSK_OK;
}
