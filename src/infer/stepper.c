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

#define LAYER_MATRICES 4

/* Matrix `index`: wte, then those of the layers; the sketches' are small and stay in float32. */
static step_matrix matrix_at(const psk_decoder *decoder, int64_t index) {
    const psk_model *model = decoder->model;
    const psk_sizes *s = &decoder->s;
    if (index == 0)
        return (step_matrix){psk_params_model(&model->params, model->weights).wte, s->V, s->D};
    const psk_layer_pointers weights =
        psk_params_layer(&model->params, &model->config, (index - 1) / LAYER_MATRICES, model->weights);
    const step_matrix matrices[LAYER_MATRICES] = {
        {weights.qkv, s->E, s->D}, {weights.out, s->D, s->D}, {weights.up, 2 * s->F, s->D}, {weights.down, s->D, s->F}};
    return matrices[(index - 1) % LAYER_MATRICES];
}

static int64_t matrix_count(const psk_decoder *decoder) {
    return 1 + decoder->s.L * LAYER_MATRICES;
}

int64_t psk_stepper_numbers(const psk_decoder *decoder) {
    int64_t numbers = 0;
    for (int64_t i = 0; i < matrix_count(decoder); i++) {
        const step_matrix matrix = matrix_at(decoder, i);
        numbers += psk_panel_numbers(matrix.n, matrix.k);
    }
    return numbers;
}

static psk_status make_panels(psk_decoder *decoder) {
    const int64_t count = matrix_count(decoder), numbers = psk_stepper_numbers(decoder);
    PSK_TRY(psk_alloc((size_t)count * sizeof *decoder->places, "the list of a model's matrices",
                      (void **)&decoder->places));
    PSK_TRY(
        psk_alloc((size_t)numbers * sizeof(psk_bf16), "the weights of a model in bfloat16", (void **)&decoder->panels));
    psk_bf16 *panels = decoder->panels;
    for (int64_t i = 0; i < count; i++) {
        const step_matrix matrix = matrix_at(decoder, i);
        PSK_RUN(decoder->model->device, pack_panels, .n = matrix.n, .k = matrix.k, .w = matrix.w, .w_ld = matrix.k,
                .w_orientation = PSK_TRANSPOSED, .panels = panels);
        decoder->places[i].w = matrix.w;
        decoder->places[i].panels = panels;
        panels += psk_panel_numbers(matrix.n, matrix.k);
    }
    decoder->place_count = count;
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
