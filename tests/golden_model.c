/* model_*.safetensors: a model's logits, gradients, losses and three steps of AdamW, computed in float64. */
#include "golden.h"
#include "support.h"

#include "io/safetensors.h"
#include "train/optimizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STEPS 3

/* A golden file at work. */
typedef struct golden_model {
    const char *path, *device_name;
    psk_safetensors *file;
    psk_device *device;
    psk_model *model;
    psk_pass *pass;
    int64_t B, N;
    int32_t *tokens, *targets;
    psk_optimizer_settings optimizer;
    float *grads, *m, *v; /* as the weights */
    float *losses;        /* B N */
    float *logits;        /* B N V */
    float *want;          /* one tensor of the file */
    int failures;
} golden_model;

static psk_status metadata_json(const golden_model *g, const char *key, json_t **out) {
    const char *text = psk_safetensors_metadata(g->file, key);
    if (text == NULL)
        return psk_fail(PSK_ERROR_FORMAT, "%s: no metadata \"%s\"", psk_safetensors_path(g->file), key);
    return psk_json_parse(text, strlen(text), key, out);
}

static psk_status read_optimizer(golden_model *g) {
    const struct {
        const char *key;
        double *value;
    } settings[] = {{"lr", &g->optimizer.lr},
                    {"beta1", &g->optimizer.beta1},
                    {"beta2", &g->optimizer.beta2},
                    {"eps", &g->optimizer.eps},
                    {"weight_decay", &g->optimizer.weight_decay},
                    {"grad_clip", &g->optimizer.grad_clip}};
    json_t *object;
    psk_status status = PSK_OK;
    PSK_TRY(metadata_json(g, "optimizer", &object));
    for (size_t i = 0; i < sizeof settings / sizeof settings[0] && status == PSK_OK; i++)
        status = psk_json_double(object, "optimizer", settings[i].key, 0, 1e9, settings[i].value);
    json_decref(object);
    return status;
}

static psk_status read_weights(golden_model *g) {
    for (int64_t i = 0; i < g->model->params.count; i++) {
        const psk_param *param = &g->model->params.list[i];
        char name[80];
        snprintf(name, sizeof name, "param.%s", param->name);
        PSK_TRY(
            psk_safetensors_read_floats(g->file, name, param->dims, param->shape, g->model->weights + param->offset));
    }
    return PSK_OK;
}

static psk_status read_model(golden_model *g) {
    psk_model_config config;
    json_t *object;
    PSK_TRY(metadata_json(g, "config", &object));
    const psk_status status = psk_config_from_json(object, "config", &config);
    json_decref(object);
    if (status != PSK_OK)
        return status;
    PSK_TRY(psk_model_create_empty(g->device, &config, &g->model));
    return read_weights(g);
}

/* tokens: B x (N+1), inputs and targets shifted by one */
static psk_status read_tokens(golden_model *g) {
    const psk_tensor_view *view = psk_safetensors_find(g->file, "tokens");
    if (view == NULL || view->dtype != PSK_I32 || view->dims != 2)
        return psk_fail(PSK_ERROR_FORMAT, "no int32 tokens of two dimensions");
    g->B = view->shape[0];
    g->N = view->shape[1] - 1;
    PSK_TRY(psk_alloc((size_t)(g->B * g->N) * sizeof(int32_t), "tokens", (void **)&g->tokens));
    PSK_TRY(psk_alloc((size_t)(g->B * g->N) * sizeof(int32_t), "targets", (void **)&g->targets));
    const size_t row = (size_t)g->N * sizeof(int32_t);
    for (int64_t b = 0; b < g->B; b++) {
        const char *data = (const char *)view->data + (size_t)b * (row + sizeof(int32_t));
        memcpy(g->tokens + b * g->N, data, row);
        memcpy(g->targets + b * g->N, data + sizeof(int32_t), row);
    }
    return PSK_OK;
}

static psk_status prepare(golden_model *g) {
    PSK_TRY(psk_device_create(g->device_name, 0, &g->device));
    PSK_TRY(psk_safetensors_open(g->path, &g->file));
    PSK_TRY(read_optimizer(g));
    PSK_TRY(read_model(g));
    PSK_TRY(read_tokens(g));
    const int64_t floats = g->model->params.floats;
    g->grads = psk_test_buffer(floats);
    g->m = psk_test_buffer(floats);
    g->v = psk_test_buffer(floats);
    memset(g->m, 0, (size_t)floats * sizeof(float));
    memset(g->v, 0, (size_t)floats * sizeof(float));
    g->losses = psk_test_buffer(g->B * g->N);
    g->logits = psk_test_buffer(g->B * g->N * g->model->config.vocab_size);
    g->want = psk_test_buffer(g->B * g->N * g->model->config.vocab_size + floats);
    const psk_pass_options options = {.B = g->B, .N = g->N, .training = true, .fill = PSK_FILL_NAN};
    return psk_pass_create(g->model, &options, &g->pass);
}

static void release(golden_model *g) {
    psk_test_free(g->want);
    psk_test_free(g->logits);
    psk_test_free(g->losses);
    psk_test_free(g->v);
    psk_test_free(g->m);
    psk_test_free(g->grads);
    psk_pass_free(g->pass);
    psk_free(g->targets);
    psk_free(g->tokens);
    psk_model_free(g->model);
    psk_safetensors_close(g->file);
    psk_device_free(g->device);
}

static void report(golden_model *g, const char *quantity, double error, double limit) {
    g->failures += golden_report(g->device_name, g->path, quantity, error, limit);
}

/* One tensor against the file's "<prefix><name>"; a negative error if the file has none. */
static psk_status compare(golden_model *g, const char *prefix, const char *name, int64_t dims, const int64_t *shape,
                          const float *got, double *error) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    *error = -1;
    if (psk_safetensors_find(g->file, full) == NULL)
        return PSK_OK;
    int64_t n = 1;
    for (int64_t i = 0; i < dims; i++)
        n *= shape[i];
    PSK_TRY(psk_safetensors_read_floats(g->file, full, dims, shape, g->want));
    *error = psk_test_relative_rms(got, g->want, n);
    return PSK_OK;
}

/* All tensors of the file under a prefix against a block laid out as the weights; the worst one is reported. */
static psk_status compare_block(golden_model *g, const char *prefix, const float *block) {
    const psk_param *worst = NULL;
    double largest = -1;
    int64_t compared = 0, there = 0;
    for (int64_t i = 0; i < g->model->params.count; i++) {
        const psk_param *param = &g->model->params.list[i];
        double error;
        PSK_TRY(compare(g, prefix, param->name, param->dims, param->shape, block + param->offset, &error));
        compared += error >= 0 || error != error;
        if (worst == NULL || !(error <= largest)) {
            worst = param;
            largest = error;
        }
    }
    for (int64_t i = 0; i < psk_safetensors_count(g->file); i++)
        there += strncmp(psk_safetensors_at(g->file, i)->name, prefix, strlen(prefix)) == 0;
    if (compared != there || there == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%" PRId64 " of %" PRId64 " tensors %s* compared", compared, there, prefix);
    char line[128];
    snprintf(line, sizeof line, "%s* (%" PRId64 "), worst %s", prefix, there, worst->name);
    report(g, line, largest, GOLDEN_MODEL_LIMIT);
    return PSK_OK;
}

static psk_status compare_number(golden_model *g, const char *prefix, int64_t step, double got, double limit) {
    char name[24];
    const float value = (float)got;
    double error;
    snprintf(name, sizeof name, "%" PRId64, step);
    PSK_TRY(compare(g, prefix, name, 1, (const int64_t[]){1}, &value, &error));
    if (error < 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s%s is not there", prefix, name);
    char line[48];
    snprintf(line, sizeof line, "%s%s", prefix, name);
    report(g, line, error, limit);
    return PSK_OK;
}

/* Loss and gradients of the weights as they are. */
static psk_status backward(golden_model *g, const psk_batch *batch, double *loss) {
    const int64_t tokens = g->B * g->N;
    memset(g->grads, 0, (size_t)g->model->params.floats * sizeof(float));
    PSK_TRY(psk_pass_loss_backward(g->pass, g->model, batch, 1.0f / (float)tokens, g->losses, g->grads));
    *loss = 0;
    for (int64_t t = 0; t < tokens; t++)
        *loss += (double)g->losses[t] / (double)tokens;
    return PSK_OK;
}

static psk_status compare_norm(golden_model *g, int64_t step) {
    double norm;
    PSK_TRY(psk_gradient_norm(g->model, g->grads, &norm));
    return compare_number(g, "grad_norm.", step, norm, GOLDEN_MODEL_LIMIT);
}

/* Three steps of training: the losses, and norm and gradients of the first step. */
static psk_status train(golden_model *g, const psk_batch *batch) {
    for (int64_t step = 1; step <= STEPS; step++) {
        double loss;
        PSK_TRY(backward(g, batch, &loss));
        PSK_TRY(compare_number(g, "loss.", step, loss, GOLDEN_MODEL_LIMIT));
        if (step == 1) {
            PSK_TRY(compare_norm(g, step));
            PSK_TRY(compare_block(g, "grad.", g->grads));
        }
        PSK_TRY(psk_optimizer_step(g->model, g->grads, g->m, g->v, &g->optimizer, step, NULL));
    }
    return PSK_OK;
}

/* AdamW's first step is lr g / (|g| + eps), nearly the sign of g: where a gradient is smaller than its own rounding
 * error, fp32 cannot tell which way it goes, and weights and norms of the later steps would measure that. So they are
 * compared in a second training, whose first step takes the gradients of the file. */
static psk_status take_gradients_of_file(golden_model *g) {
    for (int64_t i = 0; i < g->model->params.count; i++) {
        const psk_param *param = &g->model->params.list[i];
        char name[80];
        snprintf(name, sizeof name, "grad.%s", param->name);
        if (param->trained)
            PSK_TRY(psk_safetensors_read_floats(g->file, name, param->dims, param->shape, g->grads + param->offset));
    }
    return PSK_OK;
}

static psk_status train_from_file(golden_model *g, const psk_batch *batch) {
    const size_t bytes = (size_t)g->model->params.floats * sizeof(float);
    double loss;
    PSK_TRY(read_weights(g));
    memset(g->m, 0, bytes);
    memset(g->v, 0, bytes);
    memset(g->grads, 0, bytes);
    for (int64_t step = 1; step <= STEPS; step++) {
        if (step == 1) {
            PSK_TRY(take_gradients_of_file(g));
        } else {
            PSK_TRY(backward(g, batch, &loss));
            PSK_TRY(compare_norm(g, step));
        }
        PSK_TRY(psk_optimizer_step(g->model, g->grads, g->m, g->v, &g->optimizer, step, NULL));
    }
    return compare_block(g, "after3.", g->model->weights);
}

static psk_status check(golden_model *g) {
    PSK_TRY(prepare(g));
    const psk_batch batch = {.tokens = g->tokens, .targets = g->targets};
    double error;
    PSK_TRY(psk_pass_logits(g->pass, g->model, &batch, g->logits));
    PSK_TRY(compare(g, "logits", "", 3, (const int64_t[]){g->B, g->N, g->model->config.vocab_size}, g->logits, &error));
    if (error < 0)
        return psk_fail(PSK_ERROR_FORMAT, "no logits");
    report(g, "logits", error, GOLDEN_LIMIT);
    PSK_TRY(train(g, &batch));
    return train_from_file(g, &batch);
}

int golden_model_file(const char *path, const char *device_name) {
    golden_model g = {.path = path, .device_name = device_name};
    const psk_status status = check(&g);
    if (status != PSK_OK) {
        print_error("%s on %s: %s: %s\n", path, device_name, psk_status_name(status), psk_error_message());
        g.failures++;
    }
    release(&g);
    return g.failures;
}
