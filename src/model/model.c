#include "model/model.h"

#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------------- model
 */

psk_status psk_model_create_empty(psk_device *device, const psk_model_config *config, psk_model **out) {
    *out = NULL;
    psk_model *model;
    psk_status status;
    PSK_TRY(psk_alloc_zero(sizeof *model, "a model", (void **)&model));
    model->device = device;
    model->config = *config;
    PSK_TRY_GOTO(status, psk_params_create(config, &model->params), failed);
    PSK_TRY_GOTO(status,
                 psk_alloc_zero((size_t)model->params.floats * sizeof(float), "the weights", (void **)&model->weights),
                 failed);
    *out = model;
    return PSK_OK;
failed:
    psk_model_free(model);
    return status;
}

psk_status psk_model_create(psk_device *device, const psk_model_config *config, uint64_t seed, psk_model **out) {
    PSK_TRY(psk_model_create_empty(device, config, out));
    const psk_status status = psk_params_init(&(*out)->params, config, seed, (*out)->weights);
    if (status != PSK_OK) {
        psk_model_free(*out);
        *out = NULL;
    }
    return status;
}

void psk_model_free(psk_model *model) {
    if (model == NULL)
        return;
    psk_free(model->weights);
    psk_params_free(&model->params);
    psk_free(model);
}

const psk_model_config *psk_model_get_config(const psk_model *model) {
    return &model->config;
}

int64_t psk_model_parameter_count(const psk_model *model) {
    int64_t count = 0;
    for (int64_t i = 0; i < model->params.count; i++)
        if (model->params.list[i].trained)
            count += model->params.list[i].count;
    return count;
}

int psk_model_tensor_at(const psk_model *model, int64_t index, psk_model_tensor *tensor) {
    if (index < 0 || index >= model->params.count)
        return 0;
    const psk_param *param = &model->params.list[index];
    *tensor = (psk_model_tensor){.name = param->name,
                                 .dims = param->dims,
                                 .shape = {param->shape[0], param->shape[1]},
                                 .data = model->weights + param->offset,
                                 .trained = param->trained};
    return 1;
}

/* -------------------------------------------------------------------------------------------------------------- pass
 */

/* Logits of so many bytes are alive at a time, but of no fewer tokens: every chunk of tokens reads the whole of wte
 * twice and adds to the whole of its gradient, which must stay small beside the 6 V D flops of each of its tokens. */
#define PSK_LOGIT_BYTES  (INT64_C(16) << 20)
#define PSK_LOGIT_TOKENS 1024

struct psk_pass {
    psk_model_config config;
    psk_sizes s;
    psk_pass_options options;
    psk_arena *arena;         /* own; NULL if planned into the caller's */
    psk_attention *attention; /* serves all layers */
    float **x;            /* training: the input of each layer and the output of the last, T x D; else one for all */
    psk_activations *act; /* of each layer, or one for all */
    psk_block_workspace work;
    float *final, *mean, *rstd; /* LN_f(x): T x D, T, T; backward: its gradient, then the running dL/dx */
    float *logits;              /* chunk x V */
    int64_t chunk;
    void *positions; /* 0 ... N-1 in each row, int32 */
};

static int64_t kept_inputs(const psk_pass *pass) {
    return pass->options.training ? pass->s.L + 1 : 1;
}

static int64_t kept_layers(const psk_pass *pass) {
    return pass->options.training && !pass->options.recompute ? pass->s.L : 1;
}

/* Input of a layer; L: output of the last one. */
static float *input_of(const psk_pass *pass, int64_t layer) {
    return pass->x[kept_inputs(pass) == 1 ? 0 : layer];
}

static psk_status plan_layers(psk_pass *pass, psk_device *device, psk_arena *arena) {
    const int64_t B = pass->options.B, N = pass->options.N;
    char name[40];
    for (int64_t i = 0; i < kept_inputs(pass); i++) {
        snprintf(name, sizeof name, "x.%lld", (long long)i);
        PSK_TRY(psk_arena_floats(arena, "activations", name, B * N * pass->s.D, &pass->x[i]));
    }
    for (int64_t i = 0; i < kept_layers(pass); i++) {
        snprintf(name, sizeof name, "blocks.%lld", (long long)i);
        PSK_TRY(psk_block_plan_activations(&pass->config, B, N, name, arena, &pass->act[i]));
    }
    PSK_TRY(psk_block_plan_workspace(&pass->config, B, N, pass->options.training, arena, &pass->work));
    const psk_attention_shape shape = {B, pass->s.H, pass->s.Hkv, N, N, pass->s.h, pass->s.h, pass->s.r};
    return psk_attention_plan(device, &pass->config.attention, &shape, arena, &pass->attention);
}

static psk_status plan_head(psk_pass *pass, psk_arena *arena) {
    const int64_t T = pass->options.B * pass->options.N;
    const int64_t fitting = PSK_LOGIT_BYTES / (pass->s.V * (int64_t)sizeof(float));
    const int64_t chunk = fitting < PSK_LOGIT_TOKENS ? PSK_LOGIT_TOKENS : fitting;
    pass->chunk = chunk < T ? chunk : T;
    PSK_TRY(psk_arena_floats(arena, "activations", "final", T * pass->s.D, &pass->final));
    PSK_TRY(psk_arena_floats(arena, "activations", "mean", T, &pass->mean));
    PSK_TRY(psk_arena_floats(arena, "activations", "rstd", T, &pass->rstd));
    PSK_TRY(psk_arena_floats(arena, "workspace", "logits", pass->chunk * pass->s.V, &pass->logits));
    return psk_arena_reserve(arena, "data", "positions", T * (int64_t)sizeof(int32_t), &pass->positions);
}

static psk_status plan_pass(psk_pass *pass, psk_device *device, psk_arena *arena) {
    PSK_TRY(psk_alloc_zero((size_t)kept_inputs(pass) * sizeof *pass->x, "a pass", (void **)&pass->x));
    PSK_TRY(psk_alloc_zero((size_t)kept_layers(pass) * sizeof *pass->act, "a pass", (void **)&pass->act));
    PSK_TRY(plan_layers(pass, device, arena));
    return plan_head(pass, arena);
}

/* B N times the widest row of the model must fit int64_t. */
static psk_status check_batch_sizes(const psk_sizes *s, int64_t B, int64_t N) {
    if (B < 1 || N < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "a batch of %lld x %lld tokens: both must be at least 1", (long long)B,
                        (long long)N);
    if (N > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "%lld tokens a sequence, must be at most %d", (long long)N, INT32_MAX);
    int64_t rows, floats;
    PSK_TRY(psk_size_mul(B, N, &rows));
    PSK_TRY(psk_size_mul(rows, 64 * (s->V + s->D * s->L + s->H * s->r), &floats));
    return PSK_OK;
}

psk_status psk_pass_plan(const psk_model_config *config, psk_device *device, const psk_pass_options *options,
                         psk_arena *arena, psk_pass **out) {
    *out = NULL;
    PSK_TRY(psk_model_config_check(config));
    const psk_sizes s = psk_sizes_of(config);
    PSK_TRY(check_batch_sizes(&s, options->B, options->N));
    psk_pass *pass;
    PSK_TRY(psk_alloc_zero(sizeof *pass, "a pass", (void **)&pass));
    pass->config = *config;
    pass->s = s;
    pass->options = *options;
    const psk_status status = plan_pass(pass, device, arena);
    if (status != PSK_OK) {
        psk_pass_free(pass);
        return status;
    }
    *out = pass;
    return PSK_OK;
}

psk_status psk_pass_create(psk_model *model, const psk_pass_options *options, psk_pass **out) {
    *out = NULL;
    psk_arena *arena;
    psk_pass *pass = NULL;
    psk_status status;
    PSK_TRY(psk_arena_create(&arena));
    PSK_TRY_GOTO(status, psk_pass_plan(&model->config, model->device, options, arena, &pass), failed);
    PSK_TRY_GOTO(status, psk_arena_commit(arena, options->fill), failed);
    pass->arena = arena;
    *out = pass;
    return PSK_OK;
failed:
    psk_pass_free(pass);
    psk_arena_free(arena);
    return status;
}

void psk_pass_free(psk_pass *pass) {
    if (pass == NULL)
        return;
    psk_attention_free(pass->attention);
    psk_free(pass->act);
    psk_free(pass->x);
    psk_arena_free(pass->arena);
    psk_free(pass);
}

/* ------------------------------------------------------------------------------------------------------------ layers
 */

/* A batch at work in a pass. */
typedef struct psk_run_state {
    psk_pass *pass;
    const psk_model *model;
    const psk_batch *batch;
    psk_model_pointers weights;
    float dropout; /* 0 outside training */
} psk_run_state;

static psk_status check_tokens(const psk_pass *pass, const psk_batch *batch, bool with_targets) {
    const int64_t V = pass->s.V;
    for (int64_t t = 0; t < pass->options.B * pass->options.N; t++) {
        if (batch->tokens[t] < 0 || batch->tokens[t] >= V)
            return psk_fail(PSK_ERROR_ARGUMENT, "token %lld is %d, must be 0 ... %lld (vocab_size - 1)", (long long)t,
                            (int)batch->tokens[t], (long long)V - 1);
        if (with_targets && batch->targets[t] >= V)
            return psk_fail(PSK_ERROR_ARGUMENT, "target %lld is %d, must be at most %lld (vocab_size - 1)",
                            (long long)t, (int)batch->targets[t], (long long)V - 1);
    }
    return PSK_OK;
}

static const int32_t *positions_of(const psk_run_state *run) {
    return run->batch->positions != NULL ? run->batch->positions : run->pass->positions;
}

/* Masks of the embedding; those of the layers are in block.c. */
static psk_status drop_embedding(const psk_run_state *run, float *x) {
    const psk_pass *pass = run->pass;
    if (run->dropout > 0)
        PSK_RUN(run->model->device, dropout, .n = pass->options.B * pass->options.N * pass->s.D, .x = x,
                .p = run->dropout, .seed = run->batch->dropout_seed, .stream = PSK_DROPOUT_EMBEDDING);
    return PSK_OK;
}

static psk_block block_at(const psk_run_state *run, int64_t layer) {
    const psk_pass *pass = run->pass;
    return (psk_block){
        .device = run->model->device,
        .config = &pass->config,
        .s = pass->s,
        .B = pass->options.B,
        .N = pass->options.N,
        .layer = layer,
        .weights = psk_params_layer(&run->model->params, &pass->config, layer, run->model->weights),
        .act = pass->act[kept_layers(pass) == 1 ? 0 : layer],
        .work = pass->work,
        .attention = pass->attention,
        .all_near = !psk_attention_reads_ab(&pass->config.attention, pass->options.N),
        .positions = positions_of(run),
        .cu_seqlens = run->batch->cu_seqlens,
        .documents = run->batch->documents,
        .dropout = run->dropout,
        .dropout_seed = run->batch->dropout_seed,
    };
}

/* tokens -> x of every layer -> LN_f(x) in pass->final */
static psk_status forward(const psk_run_state *run) {
    psk_pass *pass = run->pass;
    psk_device *device = run->model->device;
    const int64_t T = pass->options.B * pass->options.N, D = pass->s.D;
    for (int64_t t = 0; t < T; t++)
        ((int32_t *)pass->positions)[t] = (int32_t)(t % pass->options.N);
    PSK_RUN(device, embedding_forward, .rows = T, .D = D, .tokens = run->batch->tokens, .positions = positions_of(run),
            .wte = run->weights.wte, .x = input_of(pass, 0), .position_scale = run->model->config.position_scale);
    PSK_TRY(drop_embedding(run, input_of(pass, 0)));
    for (int64_t i = 0; i < pass->s.L; i++) {
        const psk_block block = block_at(run, i);
        PSK_TRY(psk_block_forward(&block, input_of(pass, i), input_of(pass, i + 1)));
    }
    PSK_RUN(device, layernorm_forward, .rows = T, .n = D, .x = input_of(pass, pass->s.L),
            .weight = run->weights.ln_f_weight, .bias = run->weights.ln_f_bias, .y = pass->final, .mean = pass->mean,
            .rstd = pass->rstd, .eps = PSK_LAYERNORM_EPS);
    return PSK_OK;
}

/* pass->final holds dL/dx behind the last layer; it is carried down to the embedding. Inverts forward. */
static psk_status backward(const psk_run_state *run, float *grads) {
    psk_pass *pass = run->pass;
    const int64_t T = pass->options.B * pass->options.N, L = pass->s.L;
    for (int64_t i = L - 1; i >= 0; i--) {
        const psk_block block = block_at(run, i);
        const psk_layer_pointers layer_grads = psk_params_layer(&run->model->params, &pass->config, i, grads);
        if (pass->options.recompute && i < L - 1) /* forward left the last layer's activations */
            PSK_TRY(psk_block_forward(&block, input_of(pass, i), NULL));
        PSK_TRY(psk_block_backward(&block, input_of(pass, i), &layer_grads, pass->final));
    }
    PSK_TRY(drop_embedding(run, pass->final));
    PSK_RUN(run->model->device, embedding_backward, .rows = T, .D = pass->s.D, .V = pass->s.V,
            .tokens = run->batch->tokens, .dx = pass->final, .dwte = psk_params_model(&run->model->params, grads).wte);
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- head
 */

psk_status psk_head_logits(psk_device *device, const psk_sizes *s, const psk_model_pointers *weights, int64_t rows,
                           const float *normed, float *logits) {
    PSK_RUN(device, copy, .batch = 1, .rows = rows, .n = s->V, .y_ld = s->V, .x = weights->lm_head_bias, .y = logits,
            .alpha = 1); /* x_ld = 0: the same row again and again */
    PSK_RUN(device, matmul, .batch = 1, .m = rows, .n = s->V, .k = s->D, .a = normed, .lda = s->D, .b = weights->wte,
            .ldb = s->D, .b_orientation = PSK_TRANSPOSED, .c = logits, .ldc = s->V, .alpha = 1, .beta = 1);
    return PSK_OK;
}

/* Losses of tokens first ... first + rows - 1; with grads also theirs, and pass->final becomes dL/dLN_f(x). */
static psk_status head_chunk(const psk_run_state *run, int64_t first, int64_t rows, float scale, float *losses,
                             const psk_model_pointers *grads) {
    psk_pass *pass = run->pass;
    psk_device *device = run->model->device;
    const int64_t D = pass->s.D, V = pass->s.V;
    float *final = pass->final + first * D;
    PSK_TRY(psk_linear_forward(device, rows, D, V, final, run->weights.wte, pass->logits));
    PSK_RUN(device, cross_entropy, .rows = rows, .V = V, .logits = pass->logits, .bias = run->weights.lm_head_bias,
            .targets = run->batch->targets + first, .loss = losses + first, .scale = scale);
    if (grads == NULL)
        return PSK_OK;
    PSK_RUN(device, column_sum, .rows = rows, .n = V, .x = pass->logits, .out = grads->lm_head_bias);
    return psk_linear_backward(device, rows, D, V, final, run->weights.wte, pass->logits, grads->wte, final);
}

static psk_status head(const psk_run_state *run, float scale, float *losses, const psk_model_pointers *grads) {
    const psk_pass *pass = run->pass;
    const int64_t T = pass->options.B * pass->options.N;
    for (int64_t first = 0; first < T; first += pass->chunk) {
        const int64_t rows = T - first < pass->chunk ? T - first : pass->chunk;
        PSK_TRY(head_chunk(run, first, rows, scale, losses, grads));
    }
    return PSK_OK;
}

/* --------------------------------------------------------------------------------------------------------- functions
 */

static psk_run_state run_state(psk_pass *pass, const psk_model *model, const psk_batch *batch, float dropout) {
    return (psk_run_state){.pass = pass,
                           .model = model,
                           .batch = batch,
                           .weights = psk_params_model(&model->params, model->weights),
                           .dropout = dropout};
}

psk_status psk_pass_loss(psk_pass *pass, const psk_model *model, const psk_batch *batch, float *losses) {
    const psk_run_state run = run_state(pass, model, batch, 0);
    PSK_TRY(check_tokens(pass, batch, true));
    PSK_TRY(forward(&run));
    return head(&run, 0, losses, NULL);
}

psk_status psk_pass_logits(psk_pass *pass, const psk_model *model, const psk_batch *batch, float *logits) {
    const psk_run_state run = run_state(pass, model, batch, 0);
    PSK_TRY(check_tokens(pass, batch, false));
    PSK_TRY(forward(&run));
    return psk_head_logits(model->device, &pass->s, &run.weights, pass->options.B * pass->options.N, pass->final,
                           logits);
}

psk_status psk_pass_loss_backward(psk_pass *pass, const psk_model *model, const psk_batch *batch, float scale,
                                  float *losses, float *grads) {
    PSK_ASSERT(pass->options.training && scale != 0);
    const psk_run_state run = run_state(pass, model, batch, pass->options.dropout);
    const psk_model_pointers model_grads = psk_params_model(&model->params, grads);
    PSK_TRY(check_tokens(pass, batch, true));
    PSK_TRY(forward(&run));
    PSK_TRY(head(&run, scale, losses, &model_grads));
    PSK_RUN(model->device, layernorm_backward, .rows = pass->options.B * pass->options.N, .n = pass->s.D,
            .x = input_of(pass, pass->s.L), .weight = run.weights.ln_f_weight, .mean = pass->mean, .rstd = pass->rstd,
            .dy = pass->final, .dx = pass->final, .dweight = model_grads.ln_f_weight, .dbias = model_grads.ln_f_bias);
    return backward(&run, grads);
}

psk_status psk_model_logits(psk_model *model, int64_t B, int64_t N, const int32_t *tokens, float *logits) {
    const psk_pass_options options = {.B = B, .N = N};
    const psk_batch batch = {.tokens = tokens};
    psk_pass *pass;
    PSK_TRY(psk_pass_create(model, &options, &pass));
    const psk_status status = psk_pass_logits(pass, model, &batch, logits);
    psk_pass_free(pass);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ memory
 */

static void add_line(psk_memory_report *report, const char *category, int64_t bytes) {
    psk_memory_line *line = report->lines;
    while (line < report->lines + report->count && strcmp(line->category, category) != 0)
        line++;
    if (line == report->lines + report->count) {
        PSK_ASSERT(report->count < (int64_t)(sizeof report->lines / sizeof report->lines[0]));
        report->count++;
        snprintf(line->category, sizeof line->category, "%s", category);
    }
    line->bytes += bytes;
    report->total += bytes;
}

psk_status psk_model_memory(const psk_model_config *config, int64_t B, int64_t N, int training, int recompute,
                            psk_memory_report *report) {
    const psk_pass_options options = {.B = B, .N = N, .training = training != 0, .recompute = recompute != 0};
    psk_params params;
    psk_arena *arena = NULL;
    psk_pass *pass = NULL;
    psk_status status;
    PSK_TRY(psk_params_create(config, &params));
    PSK_TRY_GOTO(status, psk_arena_create(&arena), done);
    PSK_TRY_GOTO(status, psk_pass_plan(config, NULL, &options, arena, &pass), done);
    *report = (psk_memory_report){0};
    const int64_t bytes = params.floats * (int64_t)sizeof(float);
    add_line(report, "parameters", bytes);
    if (training) {
        add_line(report, "gradients", bytes);
        add_line(report, "optimizer", 2 * bytes); /* AdamW's m and v */
    }
    for (int64_t i = 0; psk_arena_category(arena, i) != NULL; i++)
        add_line(report, psk_arena_category(arena, i), psk_arena_category_bytes(arena, psk_arena_category(arena, i)));
    add_line(report, "data", B * N * (int64_t)(2 * sizeof(int32_t) + sizeof(float))); /* tokens, targets, losses */
done:
    psk_pass_free(pass);
    psk_arena_free(arena);
    psk_params_free(&params);
    return status;
}
