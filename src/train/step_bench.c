/* A training step on random tokens, for measuring it. */
#include "base/rng.h"
#include "train/step.h"

struct psk_step_bench {
    psk_arena *arena;
    psk_step step;
    int32_t *tokens;  /* B x N + 1: inputs, and shifted by one the targets */
    int64_t steps;    /* run so far */
    double grad_norm; /* of the last one */
};

static void draw_tokens(psk_step_bench *bench) {
    psk_rng rng = psk_rng_make(1, psk_rng_stream("step bench"));
    const uint64_t V = (uint64_t)bench->step.model->config.vocab_size;
    for (int64_t i = 0; i <= bench->step.B * bench->step.N; i++)
        bench->tokens[i] = (int32_t)psk_rng_below(&rng, V);
}

psk_status psk_step_bench_create(psk_model *model, int64_t B, int64_t N, int recompute, psk_step_bench **out) {
    psk_status status;
    psk_step_bench *bench;
    int64_t tokens;
    *out = NULL;
    if (B < 1 || N < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "a step of %lld x %lld tokens: both must be at least 1", (long long)B,
                        (long long)N);
    PSK_TRY(psk_size_mul(B, N, &tokens));
    PSK_TRY(psk_alloc_zero(sizeof *bench, "step bench", (void **)&bench));
    PSK_TRY_GOTO(status, psk_arena_create(&bench->arena), failed);
    const psk_pass_options options = {.B = B, .N = N, .training = true, .recompute = recompute != 0};
    PSK_TRY_GOTO(status, psk_step_plan(model, &options, bench->arena, &bench->step), failed);
    PSK_TRY_GOTO(status,
                 psk_arena_reserve(bench->arena, "data", "tokens", (tokens + 1) * (int64_t)sizeof(int32_t),
                                   (void **)&bench->tokens),
                 failed);
    /* Written once, so that a first step, all there is of a long one, does not wait for the system to make pages. */
    PSK_TRY_GOTO(status, psk_arena_commit(bench->arena, PSK_FILL_ZERO), failed);
    PSK_TRY_GOTO(status, psk_step_reset_moments(&bench->step), failed);
    draw_tokens(bench);
    *out = bench;
    return PSK_OK;
failed:
    psk_step_bench_free(bench);
    return status;
}

psk_status psk_step_bench_run(psk_step_bench *bench, double *loss) {
    psk_step *step = &bench->step;
    const int64_t count = step->B * step->N;
    const psk_batch batch = {.tokens = bench->tokens, .targets = bench->tokens + 1};
    double sum = 0;
    PSK_TRY(psk_step_begin(step));
    PSK_TRY(psk_step_add(step, &batch, 1 / (float)count, &sum));
    /* Rate 0: the work of a step, and the model is as before. */
    const psk_optimizer_settings settings = {.lr = 0, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .grad_clip = 1};
    PSK_TRY(
        psk_optimizer_step(step->model, step->grads, step->m, step->v, &settings, ++bench->steps, &bench->grad_norm));
    *loss = sum / (double)count;
    return PSK_OK;
}

psk_status psk_step_bench_forward(psk_step_bench *bench, double *loss) {
    psk_step *step = &bench->step;
    const int64_t count = step->B * step->N;
    const psk_batch batch = {.tokens = bench->tokens, .targets = bench->tokens + 1};
    double sum = 0;
    PSK_TRY(psk_pass_loss(step->pass, step->model, &batch, step->losses));
    for (int64_t i = 0; i < count; i++)
        sum += step->losses[i];
    *loss = sum / (double)count;
    return PSK_OK;
}

double psk_step_bench_grad_norm(const psk_step_bench *bench) {
    return bench->grad_norm;
}

void psk_step_bench_free(psk_step_bench *bench) {
    if (!bench)
        return;
    psk_step_release(&bench->step);
    psk_arena_free(bench->arena);
    psk_free(bench);
}
