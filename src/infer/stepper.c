/* The device of a step. Layers are written for any device; a step needs products whose rows do not depend on each other
 * and, in bfloat16, weights that were rounded once and for all. So it runs them on a device that is the model's own but
 * for its matmul. */
#include "infer/decoder.h"

#include <stddef.h>

static const psk_bf16 *panels_of(const psk_decoder *decoder, const float *w) {
    if (decoder->model->device->precision != PSK_PRECISION_BF16)
        return NULL;
    for (int64_t i = 0; i < decoder->place_count; i++)
        if (decoder->places[i].w == w)
            return decoder->places[i].panels;
    return NULL;
}

static psk_status stepper_matmul(psk_device *device, const psk_matmul_args *a) {
    const psk_decoder *decoder = (const psk_decoder *)((const char *)device - offsetof(psk_decoder, stepper));
    PSK_ASSERT(a->batch == 1 && a->a_orientation == PSK_PLAIN);
    PSK_RUN(device, row_products, .rows = a->m, .n = a->n, .k = a->k, .x = a->a, .x_ld = a->lda, .w = a->b,
            .w_ld = a->ldb, .w_orientation = a->b_orientation, .panels = panels_of(decoder, a->b), .y = a->c,
            .y_ld = a->ldc, .alpha = a->alpha, .beta = a->beta);
    return PSK_OK;
}

/* A matrix of the model, n x k. */
typedef struct step_matrix {
    const float *w;
    int64_t n, k;
} step_matrix;

#define DENSE_MATRICES 4 /* of a layer; the largest sketch has two in each level of its two networks */
#define MOST_MATRICES  (DENSE_MATRICES + 4 * PSK_SKETCH_LEVELS)

/* Those of the sketch; returns their number. Random ones stay in float32, as in prompts (docs/numerics.md). */
static int64_t sketch_matrices(const psk_decoder *decoder, const psk_sketch_params *params, step_matrix *out) {
    const psk_sizes *s = &decoder->s;
    int64_t count = 0;
    for (int net = 0; net < 2; net++) {
        for (int level = 0; level < PSK_SKETCH_LEVELS && s->learned; level++) {
            const int64_t wide = PSK_SKETCH_EXPANSION * s->r, in = level == 0 ? s->h : s->r;
            out[count++] = (step_matrix){params->net[net][level].up, wide, in};
            out[count++] = (step_matrix){params->net[net][level].down, s->r, wide};
        }
        if (s->learned_linear)
            out[count++] = (step_matrix){params->weight[net], s->r, s->h};
    }
    return count;
}

/* Those of a layer; returns their number. */
static int64_t layer_matrices(const psk_decoder *decoder, int64_t layer, step_matrix out[MOST_MATRICES]) {
    const psk_model *model = decoder->model;
    const psk_sizes *s = &decoder->s;
    const psk_layer_pointers weights = psk_params_layer(&model->params, &model->config, layer, model->weights);
    out[0] = (step_matrix){weights.qkv, s->E, s->D};
    out[1] = (step_matrix){weights.out, s->D, s->D};
    out[2] = (step_matrix){weights.up, 2 * s->F, s->D};
    out[3] = (step_matrix){weights.down, s->D, s->F};
    return DENSE_MATRICES + sketch_matrices(decoder, &weights.sketch, out + DENSE_MATRICES);
}

static step_matrix head_matrix(const psk_decoder *decoder) {
    const psk_model *model = decoder->model;
    return (step_matrix){psk_params_model(&model->params, model->weights).wte, decoder->s.V, decoder->s.D};
}

int64_t psk_stepper_numbers(const psk_decoder *decoder) {
    step_matrix matrices[MOST_MATRICES] = {head_matrix(decoder)};
    int64_t numbers = psk_panel_numbers(matrices[0].n, matrices[0].k);
    const int64_t count = layer_matrices(decoder, 0, matrices);
    for (int64_t i = 0; i < count; i++)
        numbers += decoder->s.L * psk_panel_numbers(matrices[i].n, matrices[i].k);
    return numbers;
}

/* Into the next place. */
static psk_status pack(psk_decoder *decoder, const step_matrix *matrix, psk_bf16 **panels) {
    PSK_RUN(decoder->model->device, pack_panels, .n = matrix->n, .k = matrix->k, .w = matrix->w, .w_ld = matrix->k,
            .w_orientation = PSK_TRANSPOSED, .panels = *panels);
    decoder->places[decoder->place_count].w = matrix->w;
    decoder->places[decoder->place_count++].panels = *panels;
    *panels += psk_panel_numbers(matrix->n, matrix->k);
    return PSK_OK;
}

static psk_status make_panels(psk_decoder *decoder) {
    step_matrix matrices[MOST_MATRICES];
    const int64_t count = layer_matrices(decoder, 0, matrices), numbers = psk_stepper_numbers(decoder);
    PSK_TRY(psk_alloc((size_t)(1 + decoder->s.L * count) * sizeof *decoder->places, "the list of a model's matrices",
                      (void **)&decoder->places));
    PSK_TRY(
        psk_alloc((size_t)numbers * sizeof(psk_bf16), "the weights of a model in bfloat16", (void **)&decoder->panels));
    psk_bf16 *panels = decoder->panels;
    const step_matrix head = head_matrix(decoder);
    PSK_TRY(pack(decoder, &head, &panels));
    for (int64_t layer = 0; layer < decoder->s.L; layer++) {
        layer_matrices(decoder, layer, matrices);
        for (int64_t i = 0; i < count; i++)
            PSK_TRY(pack(decoder, &matrices[i], &panels));
    }
    return PSK_OK;
}

psk_status psk_stepper_prepare(psk_decoder *decoder) {
    const psk_device *device = decoder->model->device;
    decoder->stepper_ops = *device->ops;
    decoder->stepper_ops.matmul = stepper_matmul;
    decoder->stepper_ops.fused_sketch_forward = NULL; /* how it computes a row depends on how many there are */
    decoder->stepper = *device;
    decoder->stepper.ops = &decoder->stepper_ops;
    if (device->precision != PSK_PRECISION_BF16 || decoder->place_count > 0)
        return PSK_OK;
    const psk_status status = make_panels(decoder);
    if (status != PSK_OK)
        psk_stepper_release(decoder);
    return status;
}

void psk_stepper_release(psk_decoder *decoder) {
    psk_free(decoder->places);
    psk_free(decoder->panels);
    decoder->places = NULL;
    decoder->panels = NULL;
    decoder->place_count = 0;
}
