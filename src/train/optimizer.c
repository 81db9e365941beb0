#include "train/optimizer.h"

#include <math.h>

psk_optimizer_settings psk_optimizer_settings_of(const psk_train_options *options, double rate) {
    return (psk_optimizer_settings){.lr = rate,
                                    .beta1 = options->beta1,
                                    .beta2 = options->beta2,
                                    .eps = options->epsilon,
                                    .weight_decay = options->weight_decay,
                                    .grad_clip = options->grad_clip};
}

psk_status psk_gradient_norm(const psk_model *model, const float *grads, double *norm) {
    double sum = 0;
    for (int64_t i = 0; i < model->params.count; i++) {
        const psk_param *param = &model->params.list[i];
        double squares;
        if (!param->trained)
            continue;
        PSK_RUN(model->device, sum_squares, .n = param->count, .x = grads + param->offset, .out = &squares);
        if (!isfinite(squares))
            return psk_fail(PSK_ERROR_NUMERIC,
                            "the gradient of %s is not finite; try a lower learning rate, or clip gradients",
                            param->name);
        sum += squares;
    }
    *norm = sqrt(sum);
    return PSK_OK;
}

static psk_status update(psk_model *model, const psk_param *param, const psk_adamw_args *shared) {
    if (!param->trained)
        return PSK_OK;
    psk_adamw_args args = *shared;
    args.n = param->count;
    args.param = model->weights + param->offset;
    args.grad += param->offset;
    args.m += param->offset;
    args.v += param->offset;
    if (!param->decayed)
        args.weight_decay = 0;
    return model->device->ops->adamw(model->device, &args);
}

psk_status psk_optimizer_step(psk_model *model, const float *grads, float *m, float *v,
                              const psk_optimizer_settings *settings, int64_t step, double *grad_norm) {
    double norm = 0;
    PSK_TRY(psk_gradient_norm(model, grads, &norm));
    if (grad_norm != NULL)
        *grad_norm = norm;
    const bool clips = settings->grad_clip > 0 && norm > settings->grad_clip;
    const psk_adamw_args shared = {.step = step,
                                   .m = m,
                                   .v = v,
                                   .grad = grads,
                                   .lr = (float)settings->lr,
                                   .beta1 = (float)settings->beta1,
                                   .beta2 = (float)settings->beta2,
                                   .eps = (float)settings->eps,
                                   .weight_decay = (float)settings->weight_decay,
                                   .grad_scale = clips ? (float)(settings->grad_clip / norm) : 1.0f};
    for (int64_t i = 0; i < model->params.count; i++)
        PSK_TRY(update(model, &model->params.list[i], &shared));
    return PSK_OK;
}
