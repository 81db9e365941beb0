/* The operations of decoding. */
#include "base/bf16.h"
#include "reference/reference.h"

#include <math.h>

static double rounded(float x) {
    return psk_bf16_to_float(psk_bf16_from_float(x));
}

static int64_t panel_index(int64_t k, int64_t l, int64_t j) {
    return ((j / PSK_PANEL * ((k + 1) / 2) + l / 2) * PSK_PANEL + j % PSK_PANEL) * 2 + l % 2;
}

static float weight_at(const float *w, int64_t ld, psk_orientation orientation, int64_t l, int64_t j) {
    return orientation == PSK_TRANSPOSED ? w[j * ld + l] : w[l * ld + j];
}

psk_status psk_reference_row_products(psk_device *device, const psk_row_products_args *a) {
    (void)device;
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < a->k; l++) {
                const float x = a->x[i * a->x_ld + l];
                sum += a->panels != NULL ? rounded(x) * psk_bf16_to_float(a->panels[panel_index(a->k, l, j)])
                                         : (double)x * weight_at(a->w, a->w_ld, a->w_orientation, l, j);
            }
            float *y = &a->y[i * a->y_ld + j];
            *y = (float)(a->alpha * sum + (a->beta == 0 ? 0 : (double)a->beta * *y));
        }
    return PSK_OK;
}

psk_status psk_reference_pack_panels(psk_device *device, const psk_pack_panels_args *a) {
    (void)device;
    for (int64_t i = 0; i < psk_panel_numbers(a->n, a->k); i++)
        a->panels[i] = 0;
    for (int64_t j = 0; j < a->n; j++)
        for (int64_t l = 0; l < a->k; l++)
            a->panels[panel_index(a->k, l, j)] = psk_bf16_from_float(weight_at(a->w, a->w_ld, a->w_orientation, l, j));
    return PSK_OK;
}

psk_status psk_reference_round_rows(psk_device *device, const psk_round_rows_args *a) {
    (void)device;
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->n; j++)
            a->y[i * a->y_ld + j] = psk_bf16_from_float(a->x[i * a->x_ld + j]);
    return PSK_OK;
}

/* Number `i` of a tensor, or of its rounded copy if there is one. */
static double number(const float *x, const psk_bf16 *rounded, int64_t i) {
    return rounded != NULL ? psk_bf16_to_float(rounded[i]) : x[i];
}

static double dot(int64_t n, const float *x, const float *y, const psk_bf16 *rounded, int64_t row) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * number(y, rounded, row * n + i);
    return sum;
}

/* Query head `head` of session `index`, with slot `slot` of its key/value head. */
static double step_weight(const psk_attention_step_args *args, int64_t index, int64_t head, int64_t slot) {
    const psk_attention_config *config = args->config;
    const psk_step_session *session = &args->sessions[index];
    const int64_t query = index * args->H + head, key = head / (args->H / args->Hkv) * session->capacity + slot;
    const bool by_sketch =
        config->mechanism == PSK_PERFORMER || (config->mechanism == PSK_POLYSKETCH && config->local == PSK_LOCAL_NONE);
    const double score = by_sketch ? dot(args->r, args->a + query * args->r, session->b, session->rounded.b, key)
                                   : dot(args->h, args->q + query * args->h, session->k, session->rounded.k, key);
    if (config->mechanism == PSK_PERFORMER)
        return score;
    if (config->mechanism == PSK_SOFTMAX)
        return exp(score / sqrt((double)args->h));
    return by_sketch ? (double)config->far_scale * score * score : pow(score, (double)config->degree);
}

/* Z[e][column] of one key/value head. */
static double state_at(const psk_attention_step_args *args, const psk_step_session *session, int64_t m, int64_t group,
                       int64_t e, int64_t column) {
    const int64_t first = group * m * (args->d + 1);
    if (session->rounded.state == NULL)
        return session->state[first + e * (args->d + 1) + column];
    return psk_bf16_to_float(
        session->rounded.state[first + (column < args->d ? e * args->d + column : m * args->d + e)]);
}

/* Number `column` of psi_q(a) Z. */
static double step_far(const psk_attention_step_args *args, int64_t index, int64_t head, int64_t column) {
    const int64_t r = args->r;
    const bool sketched = args->config->mechanism == PSK_POLYSKETCH;
    const float *x = args->a + (index * args->H + head) * r;
    const int64_t m = sketched ? r * (r + 1) / 2 : r, group = head / (args->H / args->Hkv);
    const psk_step_session *session = &args->sessions[index];
    double sum = 0;
    if (!sketched)
        for (int64_t i = 0; i < r; i++)
            sum += (double)x[i] * state_at(args, session, m, group, i, column);
    for (int64_t i = 0, e = 0; sketched && i < r; i++)
        for (int64_t j = i; j < r; j++, e++)
            sum += (double)args->config->far_scale * (i == j ? 1 : 2) * x[i] * x[j] *
                   state_at(args, session, m, group, e, column);
    return sum;
}

static double step_sum(const psk_attention_step_args *args, int64_t index, int64_t head, int64_t column) {
    const psk_step_session *session = &args->sessions[index];
    double sum = session->state != NULL ? step_far(args, index, head, column) : 0;
    for (int64_t t = 0; t <= session->rows; t++) {
        const int64_t slot = (session->first + t) % session->capacity;
        const int64_t key = head / (args->H / args->Hkv) * session->capacity + slot;
        sum += step_weight(args, index, head, slot) *
               (column < args->d ? number(session->v, session->rounded.v, key * args->d + column) : 1.0);
    }
    return sum;
}

static void keep_row(float *rows, psk_bf16 *rounded_rows, int64_t row, const float *x, int64_t index, int64_t width) {
    for (int64_t i = 0; rows != NULL && i < width; i++)
        rows[row * width + i] = x[index * width + i];
    for (int64_t i = 0; rounded_rows != NULL && i < width; i++)
        rounded_rows[row * width + i] = psk_bf16_from_float(x[index * width + i]);
}

psk_status psk_reference_attention_step(psk_device *device, const psk_attention_step_args *args) {
    (void)device;
    const bool biased = args->config->mechanism == PSK_POLYNOMIAL || args->config->mechanism == PSK_POLYSKETCH;
    for (int64_t i = 0; i < args->count * args->Hkv; i++) {
        const psk_step_session *session = &args->sessions[i / args->Hkv];
        const int64_t row = i % args->Hkv * session->capacity + (session->first + session->rows) % session->capacity;
        keep_row(session->k, session->rounded.k, row, args->k, i, args->h);
        keep_row(session->v, session->rounded.v, row, args->v, i, args->d);
        keep_row(session->b, session->rounded.b, row, args->b, i, args->r);
    }
    for (int64_t i = 0; i < args->count * args->H; i++) {
        const int64_t index = i / args->H, head = i % args->H;
        const double den = (biased ? (double)args->config->denominator_bias : 0) + step_sum(args, index, head, args->d);
        for (int64_t c = 0; c < args->d; c++)
            args->out[i * args->d + c] = den == 0 ? 0.0f : (float)(step_sum(args, index, head, c) / den);
    }
    return PSK_OK;
}
