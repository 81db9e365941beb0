/* What programs measure that is not a model: matrix products, and sketches on their own. */
#include "attention/attn_performer.h"
#include "attention/attn_sketch.h"
#include "model/params.h"

#include <inttypes.h>

psk_status psk_matmul(psk_device *device, int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c) {
    int64_t size;
    if (m < 0 || n < 0 || k < 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "a matrix product of %" PRId64 " x %" PRId64 " x %" PRId64 ": sizes are >= 0", m, n, k);
    PSK_TRY(psk_size_mul(m, k, &size));
    PSK_TRY(psk_size_mul(k, n, &size));
    PSK_TRY(psk_size_mul(m, n, &size));
    PSK_RUN(device, matmul, .batch = 1, .m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .ldb = n, .c = c, .ldc = n,
            .alpha = 1, .beta = 0);
    return PSK_OK;
}

psk_status psk_row_dots(psk_device *device, int64_t rows, int64_t n, const float *x, const float *y, float *out) {
    int64_t size;
    if (rows < 0 || n < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "%" PRId64 " rows of %" PRId64 " numbers: sizes are >= 0", rows, n);
    PSK_TRY(psk_size_mul(rows, n, &size));
    PSK_RUN(device, row_dot, .batch = 1, .rows = rows, .n = n, .x_stride = rows * n, .x = x, .y = y, .out = out);
    return PSK_OK;
}

/* The parameters are those of a model with one layer and one head: the only part of it that is used is its sketch. */
struct psk_sketch_bench {
    psk_device *device;
    psk_model_config config;
    psk_params params;
    float *weights, *grads; /* one block each */
    float *workspace;
    int64_t h, rows;
    psk_layer_pointers at, grads_at; /* into weights, into grads */
};

static psk_status allocate_floats(int64_t count, const char *what, float **out) {
    int64_t bytes;
    PSK_TRY(psk_size_mul(count, sizeof(float), &bytes));
    return psk_alloc_zero((size_t)bytes, what, (void **)out);
}

static psk_status take_parameters(psk_sketch_bench *bench) {
    const psk_model_config *const config = &bench->config;
    PSK_TRY(psk_params_create(config, &bench->params));
    PSK_TRY(allocate_floats(bench->params.floats, "parameters of the sketch", &bench->weights));
    PSK_TRY(allocate_floats(bench->params.floats, "gradients of the sketch", &bench->grads));
    PSK_TRY(psk_params_init(&bench->params, config, 1, bench->weights));
    bench->at = psk_params_layer(&bench->params, config, 0, bench->weights);
    bench->grads_at = psk_params_layer(&bench->params, config, 0, bench->grads);
    if (config->attention.mechanism == PSK_POLYSKETCH)
        PSK_TRY(allocate_floats(psk_sketch_workspace(&config->attention, bench->h), "workspace of the sketch",
                                &bench->workspace));
    return PSK_OK;
}

psk_status psk_sketch_bench_create(psk_device *device, const psk_attention_config *config, int64_t h, int64_t rows,
                                   psk_sketch_bench **out) {
    psk_sketch_bench *bench;
    *out = NULL;
    if (!psk_attention_uses_ab(config))
        return psk_fail(PSK_ERROR_ARGUMENT, "%s has neither sketches nor features",
                        psk_mechanism_name(config->mechanism));
    if (rows < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "%" PRId64 " rows to sketch: at least 1 is needed", rows);
    PSK_TRY(psk_alloc_zero(sizeof *bench, "sketch bench", (void **)&bench));
    bench->device = device;
    bench->h = h;
    bench->rows = rows;
    bench->config = (psk_model_config){
        .vocab_size = 1, .n_positions = 1, .n_embd = h, .n_layer = 1, .n_head = 1, .attention = *config};
    const psk_status status = take_parameters(bench);
    if (status != PSK_OK) {
        psk_sketch_bench_free(bench);
        return status;
    }
    *out = bench;
    return PSK_OK;
}

void psk_sketch_bench_free(psk_sketch_bench *bench) {
    if (!bench)
        return;
    psk_params_free(&bench->params);
    psk_free(bench->weights);
    psk_free(bench->grads);
    psk_free(bench->workspace);
    psk_free(bench);
}

static psk_status run_features(psk_sketch_bench *bench, const float *x, float *s, float *ds, float *dx) {
    const int64_t h = bench->h, m = bench->config.attention.sketch_size;
    PSK_TRY(psk_performer_features_forward(bench->device, h, m, bench->rows, x, bench->at.projection, s));
    if (!dx)
        return PSK_OK;
    return psk_performer_features_backward(bench->device,
                                           &(psk_performer_backward_args){.h = h,
                                                                          .m = m,
                                                                          .rows = bench->rows,
                                                                          .x = x,
                                                                          .projection = bench->at.projection,
                                                                          .f = s,
                                                                          .df = ds,
                                                                          .dx = dx});
}

psk_status psk_sketch_bench_run(psk_sketch_bench *bench, const float *x, float *s, float *ds, float *dx) {
    const psk_attention_config *const config = &bench->config.attention;
    if (config->mechanism == PSK_PERFORMER)
        return run_features(bench, x, s, ds, dx);
    PSK_TRY(
        psk_sketch_forward(bench->device, config, bench->h, bench->rows, x, &bench->at.sketch, s, bench->workspace));
    if (!dx)
        return PSK_OK;
    return psk_sketch_backward(bench->device, config,
                               &(psk_sketch_backward_args){.h = bench->h,
                                                           .rows = bench->rows,
                                                           .x = x,
                                                           .s = s,
                                                           .ds = ds,
                                                           .params = &bench->at.sketch,
                                                           .dx = dx,
                                                           .dx_write = PSK_SET,
                                                           .grads = &bench->grads_at.sketch_grads,
                                                           .workspace = bench->workspace});
}
