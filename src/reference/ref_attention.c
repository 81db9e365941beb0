/* One query row at a time: its weights, its sums, its gradients. A "far" weight comes from the features a and b, a
 * "near" one from q and k; the mechanism and the distance decide which one a pair (query, key) has. */
#include "reference/ref_attention.h"

#include "base/memory.h"
#include "reference/ref_math.h"

#include <string.h>

typedef enum { WEIGHT_MASKED, WEIGHT_SOFTMAX, WEIGHT_POWER, WEIGHT_SQUARED, WEIGHT_LINEAR } weight_form;

/* One (sequence, query head), and the scratch rows of the query that is being worked on. */
typedef struct head_view {
    const psk_attention_config *config;
    const psk_attention_shape *shape;
    const psk_ref_attention_tensors *tensors;
    int64_t sequence;   /* 0 ... B - 1 */
    int64_t query_head; /* 0 ... B H - 1: block of q, a, out */
    int64_t kv_head;    /* 0 ... B Hkv - 1: block of k, v, b, states */
    double *w;          /* Nk: weights of the current query; softmax: divided by exp(maximum) */
    double *sum;        /* d + 1: sum_j w_ij [v_j, 1] */
    double *dsum;       /* d + 1: its gradient, dn_i */
    double maximum;     /* softmax: of the scores of the current query */
} head_view;

/* Where query i and key j of a row stand. */
typedef struct token_pair {
    int64_t query,
        key; /* positions counted from the start of their document; the queries are the last Nq of Nk tokens */
    bool same_document;
} token_pair;

int64_t psk_ref_state_rows(const psk_attention_config *config, int64_t r) {
    if (config->mechanism == PSK_POLYSKETCH)
        return r * (r + 1) / 2;
    return config->mechanism == PSK_PERFORMER ? r : 0;
}

/* How many of Nk keys stay outside state1 (polysketch with a local part: those of the unfinished block, and with a
 * window the last whole block too). */
static int64_t tail_keys(const psk_attention_config *config, int64_t Nk) {
    const int64_t b = config->block_size;
    if (config->mechanism == PSK_PERFORMER || (config->mechanism == PSK_POLYSKETCH && config->local == PSK_LOCAL_NONE))
        return 0;
    if (config->mechanism != PSK_POLYSKETCH)
        return Nk;
    const int64_t whole_blocks = Nk / b, open = config->local == PSK_LOCAL_WINDOW && whole_blocks > 0 ? 1 : 0;
    return Nk - (whole_blocks - open) * b;
}

/* Start of the document of the token with this flat index. */
static int64_t document_start(const psk_ref_attention_tensors *tensors, int64_t flat) {
    int64_t start = 0;
    for (int64_t i = 0; i < tensors->documents; i++)
        if (tensors->cu_seqlens[i] <= flat)
            start = tensors->cu_seqlens[i];
    return start;
}

static token_pair locate(const head_view *head, int64_t i, int64_t j) {
    const psk_attention_shape *shape = head->shape;
    if (head->tensors->cu_seqlens == NULL)
        return (token_pair){i + shape->Nk - shape->Nq, j, true};
    const int64_t query = head->sequence * shape->Nq + i, key = head->sequence * shape->Nq + j;
    const int64_t start = document_start(head->tensors, query);
    return (token_pair){query - start, key - start, document_start(head->tensors, key) == start};
}

/* Whether the key is in the query's block or, with a window, in the one before. */
static bool is_near(const psk_attention_config *config, token_pair pair) {
    const int64_t blocks_back = pair.query / config->block_size - pair.key / config->block_size;
    return blocks_back == 0 || (config->local == PSK_LOCAL_WINDOW && blocks_back == 1);
}

static weight_form form_of(const head_view *head, int64_t i, int64_t j) {
    const psk_attention_config *config = head->config;
    const token_pair pair = locate(head, i, j);
    if (!pair.same_document || (config->direction == PSK_CAUSAL && pair.key > pair.query))
        return WEIGHT_MASKED;
    if (config->local_only && !is_near(config, pair))
        return WEIGHT_MASKED;
    switch (config->mechanism) {
    case PSK_SOFTMAX:
        return WEIGHT_SOFTMAX;
    case PSK_POLYNOMIAL:
        return WEIGHT_POWER;
    case PSK_PERFORMER:
        return WEIGHT_LINEAR;
    case PSK_POLYSKETCH:
        break;
    }
    return config->local != PSK_LOCAL_NONE && is_near(config, pair) ? WEIGHT_POWER : WEIGHT_SQUARED;
}

static const double *query_row(const head_view *head, int64_t i) {
    return head->tensors->q + (head->query_head * head->shape->Nq + i) * head->shape->h;
}

static const double *key_row(const head_view *head, int64_t j) {
    return head->tensors->k + (head->kv_head * head->shape->Nk + j) * head->shape->h;
}

static const double *query_features(const head_view *head, int64_t i) {
    return head->tensors->a + (head->query_head * head->shape->Nq + i) * head->shape->r;
}

static const double *key_features(const head_view *head, int64_t j) {
    return head->tensors->b + (head->kv_head * head->shape->Nk + j) * head->shape->r;
}

static const double *value_row(const head_view *head, int64_t j) {
    return head->tensors->v + (head->kv_head * head->shape->Nk + j) * head->shape->d;
}

/* <q_i, k_j> or <a_i, b_j>, whichever the weight is made of. */
static double score(const head_view *head, weight_form form, int64_t i, int64_t j) {
    if (form == WEIGHT_SQUARED || form == WEIGHT_LINEAR)
        return psk_ref_dot(head->shape->r, query_features(head, i), key_features(head, j));
    return psk_ref_dot(head->shape->h, query_row(head, i), key_row(head, j));
}

static double weight(const head_view *head, weight_form form, double s) {
    switch (form) {
    case WEIGHT_MASKED:
        return 0;
    case WEIGHT_SOFTMAX:
        return exp(s / sqrt((double)head->shape->h) - head->maximum);
    case WEIGHT_POWER:
        return psk_ref_power(s, head->config->degree);
    case WEIGHT_SQUARED:
        return (double)head->config->far_scale * s * s;
    case WEIGHT_LINEAR:
        return s;
    }
    return NAN;
}

/* dw/ds of weight(). */
static double weight_slope(const head_view *head, weight_form form, double s, double w) {
    switch (form) {
    case WEIGHT_MASKED:
        return 0;
    case WEIGHT_SOFTMAX:
        return w / sqrt((double)head->shape->h);
    case WEIGHT_POWER:
        return (double)head->config->degree * psk_ref_power(s, head->config->degree - 1);
    case WEIGHT_SQUARED:
        return 2 * (double)head->config->far_scale * s;
    case WEIGHT_LINEAR:
        return 1;
    }
    return NAN;
}

/* maximum = max_j s_ij / sqrt(h) over the visible keys. */
static void find_maximum(head_view *head, int64_t i) {
    head->maximum = -INFINITY;
    for (int64_t j = 0; j < head->shape->Nk; j++)
        if (form_of(head, i, j) == WEIGHT_SOFTMAX)
            head->maximum = fmax(head->maximum, score(head, WEIGHT_SOFTMAX, i, j) / sqrt((double)head->shape->h));
}

/* The weight of entry e of the state for features a: far_scale f_e a_x a_y, or a_e for performer. */
static double state_weight(const head_view *head, const double *a, int64_t x, int64_t y) {
    if (head->config->mechanism == PSK_PERFORMER)
        return a[x];
    return (double)head->config->far_scale * (x == y ? 1 : 2) * a[x] * a[y];
}

typedef void (*state_visitor)(head_view *head, int64_t i, int64_t e, int64_t x, int64_t y);

/* Calls `visit` for each entry e of a state: with its pair x <= y (polysketch) or x == y == e (performer). */
static void for_state(head_view *head, int64_t i, state_visitor visit) {
    const int64_t r = head->shape->r;
    int64_t e = 0;
    for (int64_t x = 0; x < r; x++)
        for (int64_t y = x; y < (head->config->mechanism == PSK_PERFORMER ? x + 1 : r); y++)
            visit(head, i, e++, x, y);
}

/* Where row e of this head's state begins, in numbers. */
static int64_t state_at(const head_view *head, int64_t e) {
    const int64_t m = psk_ref_state_rows(head->config, head->shape->r);
    return (head->kv_head * m + e) * (head->shape->d + 1);
}

/* sum += state weight * state0[e] */
static void read_state(head_view *head, int64_t i, int64_t e, int64_t x, int64_t y) {
    const double w = state_weight(head, query_features(head, i), x, y);
    for (int64_t c = 0; c <= head->shape->d; c++)
        head->sum[c] += w * head->tensors->state0[state_at(head, e) + c];
}

/* Fills w and sum for query i; returns the denominator. */
static double sum_row(head_view *head, int64_t i) {
    const int64_t d = head->shape->d, Nk = head->shape->Nk;
    memset(head->sum, 0, (size_t)(d + 1) * sizeof *head->sum);
    if (head->config->mechanism == PSK_SOFTMAX)
        find_maximum(head, i);
    for (int64_t j = 0; j < Nk; j++) {
        const weight_form form = form_of(head, i, j);
        head->w[j] = form == WEIGHT_MASKED ? 0 : weight(head, form, score(head, form, i, j));
        for (int64_t c = 0; c < d; c++)
            head->sum[c] += head->w[j] * value_row(head, j)[c];
        head->sum[d] += head->w[j];
    }
    if (head->tensors->state0 != NULL)
        for_state(head, i, read_state);
    const bool biased = head->config->mechanism == PSK_POLYNOMIAL || head->config->mechanism == PSK_POLYSKETCH;
    return head->sum[d] + (biased ? (double)head->config->denominator_bias : 0);
}

static void forward_row(head_view *head, int64_t i) {
    const int64_t d = head->shape->d, row = head->query_head * head->shape->Nq + i;
    const double den = sum_row(head, i);
    for (int64_t c = 0; head->tensors->out != NULL && c < d; c++)
        head->tensors->out[row * d + c] = den == 0 ? 0 : head->sum[c] / den;
    if (head->tensors->normaliser != NULL)
        head->tensors->normaliser[row] = head->config->mechanism == PSK_SOFTMAX ? head->maximum + log(den) : den;
}

/* state1[e] += b_x b_y [v, 1], or b_e [v, 1] for performer */
static void write_state(head_view *head, int64_t j, int64_t e, int64_t x, int64_t y) {
    const double *b = key_features(head, j);
    const double w = head->config->mechanism == PSK_PERFORMER ? b[x] : b[x] * b[y];
    for (int64_t c = 0; c <= head->shape->d; c++)
        head->tensors->state1[state_at(head, e) + c] += w * (c < head->shape->d ? value_row(head, j)[c] : 1);
}

/* dsum = dn_i = [dout / den, -<dout, out> / den] */
static void normalise_backward(head_view *head, int64_t i, double den) {
    const int64_t d = head->shape->d;
    const double *dout = head->tensors->dout + (head->query_head * head->shape->Nq + i) * d;
    head->dsum[d] = 0;
    for (int64_t c = 0; c < d; c++) {
        head->dsum[c] = den == 0 ? 0 : dout[c] / den;
        head->dsum[d] -= den == 0 ? 0 : dout[c] * head->sum[c] / (den * den);
    }
}

/* <row, [v_j, 1]> */
static double dot_value(const head_view *head, const double *row, int64_t j) {
    return psk_ref_dot(head->shape->d, row, value_row(head, j)) + row[head->shape->d];
}

static void add_scaled(int64_t n, double scale, const double *x, double *y) {
    for (int64_t i = 0; y != NULL && i < n; i++)
        y[i] += scale * x[i];
}

/* Row `row` of a gradient, or NULL if it is not wanted. */
static double *gradient_row(double *gradient, int64_t row, int64_t n) {
    return gradient == NULL ? NULL : gradient + row * n;
}

/* s = <x_i, y_j>: dx_i += ds y_j, dy_j += ds x_i */
static void score_backward(head_view *head, weight_form form, int64_t i, int64_t j, double ds) {
    const psk_attention_shape *shape = head->shape;
    const psk_ref_attention_tensors *t = head->tensors;
    const int64_t query = head->query_head * shape->Nq + i, key = head->kv_head * shape->Nk + j;
    if (form == WEIGHT_SQUARED || form == WEIGHT_LINEAR) {
        add_scaled(shape->r, ds, key_features(head, j), gradient_row(t->da, query, shape->r));
        add_scaled(shape->r, ds, query_features(head, i), gradient_row(t->db, key, shape->r));
    } else {
        add_scaled(shape->h, ds, key_row(head, j), gradient_row(t->dq, query, shape->h));
        add_scaled(shape->h, ds, query_row(head, i), gradient_row(t->dk, key, shape->h));
    }
}

/* sum += w(a) state0[e]: dstate0[e] += w dsum, da += dw/da <dsum, state0[e]> */
static void read_state_backward(head_view *head, int64_t i, int64_t e, int64_t x, int64_t y) {
    const psk_ref_attention_tensors *t = head->tensors;
    const int64_t d = head->shape->d, r = head->shape->r, at = state_at(head, e);
    const double *a = query_features(head, i);
    const double dw = psk_ref_dot(d + 1, head->dsum, t->state0 + at);
    add_scaled(d + 1, state_weight(head, a, x, y), head->dsum, t->dstate0 == NULL ? NULL : t->dstate0 + at);
    double *da = gradient_row(t->da, head->query_head * head->shape->Nq + i, r);
    if (da == NULL)
        return;
    if (head->config->mechanism == PSK_PERFORMER) {
        da[x] += dw;
        return;
    }
    const double pair = (double)head->config->far_scale * (x == y ? 1 : 2) * dw;
    da[x] += pair * a[y];
    da[y] += pair * a[x];
}

static void backward_row(head_view *head, int64_t i) {
    const int64_t d = head->shape->d, Nk = head->shape->Nk;
    normalise_backward(head, i, sum_row(head, i));
    for (int64_t j = 0; j < Nk; j++) {
        const weight_form form = form_of(head, i, j);
        if (form == WEIGHT_MASKED)
            continue;
        add_scaled(d, head->w[j], head->dsum, gradient_row(head->tensors->dv, head->kv_head * Nk + j, d));
        const double dw = dot_value(head, head->dsum, j);
        score_backward(head, form, i, j, dw * weight_slope(head, form, score(head, form, i, j), head->w[j]));
    }
    if (head->tensors->state0 != NULL)
        for_state(head, i, read_state_backward);
}

/* state1[e] += w(b) [v, 1]: dv += w dstate1[e], db += dw/db <dstate1[e], [v, 1]> */
static void write_state_backward(head_view *head, int64_t j, int64_t e, int64_t x, int64_t y) {
    const psk_ref_attention_tensors *t = head->tensors;
    const int64_t d = head->shape->d, r = head->shape->r, key = head->kv_head * head->shape->Nk + j;
    const double *b = key_features(head, j), *dstate1 = t->dstate1 + state_at(head, e);
    const bool performer = head->config->mechanism == PSK_PERFORMER;
    add_scaled(d, performer ? b[x] : b[x] * b[y], dstate1, gradient_row(t->dv, key, d));
    const double dw = dot_value(head, dstate1, j);
    double *db = gradient_row(t->db, key, r);
    if (db == NULL)
        return;
    if (performer) {
        db[x] += dw;
        return;
    }
    db[x] += dw * b[y];
    db[y] += dw * b[x];
}

typedef void (*row_work)(head_view *head, int64_t i);

/* work(i) for every query row of every head, with the rows' buffers. */
static psk_status for_rows(head_view *head, row_work work) {
    const psk_attention_shape *shape = head->shape;
    void *buffers;
    PSK_TRY(psk_alloc((size_t)(shape->Nk + 2 * (shape->d + 1)) * sizeof(double), "rows of the reference attention",
                      &buffers));
    head->w = buffers;
    head->sum = head->w + shape->Nk;
    head->dsum = head->sum + shape->d + 1;
    for (int64_t query_head = 0; query_head < shape->B * shape->H; query_head++) {
        head->sequence = query_head / shape->H;
        head->query_head = query_head;
        head->kv_head = head->sequence * shape->Hkv + query_head % shape->H / (shape->H / shape->Hkv);
        for (int64_t i = 0; i < shape->Nq; i++)
            work(head, i);
    }
    psk_free(buffers);
    return PSK_OK;
}

/* visit(j, e) for every key that state1 takes in, in every key/value head. */
static void for_state_keys(head_view *head, state_visitor visit) {
    const psk_attention_shape *shape = head->shape;
    for (head->kv_head = 0; head->kv_head < shape->B * shape->Hkv; head->kv_head++)
        for (int64_t j = 0; j < shape->Nk - tail_keys(head->config, shape->Nk); j++)
            for_state(head, j, visit);
}

static void check_contract(const psk_attention_config *config, const psk_attention_shape *shape,
                           const psk_ref_attention_tensors *t) {
    (void)config, (void)shape, (void)t; /* without assertions */
    PSK_ASSERT(shape->B >= 1 && shape->Hkv >= 1 && shape->H % shape->Hkv == 0 && shape->Nq >= 1 && shape->Nk >= 1);
    /* positions, which causality and blocks are made of, need the queries to be among the keys */
    PSK_ASSERT(shape->Nk >= shape->Nq || (config->direction == PSK_BIDIRECTIONAL &&
                                          (config->mechanism != PSK_POLYSKETCH || config->local == PSK_LOCAL_NONE)));
    PSK_ASSERT(t->cu_seqlens == NULL || (shape->Nq == shape->Nk && t->state0 == NULL && t->state1 == NULL));
    PSK_ASSERT((t->state0 == NULL && t->state1 == NULL) || psk_ref_state_rows(config, shape->r) > 0);
}

static int64_t state_count(const psk_attention_config *config, const psk_attention_shape *shape) {
    return shape->B * shape->Hkv * psk_ref_state_rows(config, shape->r) * (shape->d + 1);
}

static void copy_or_zero(int64_t n, const double *from, double *to) {
    if (to != NULL && from != NULL)
        memcpy(to, from, (size_t)n * sizeof *to);
    else if (to != NULL)
        memset(to, 0, (size_t)n * sizeof *to);
}

psk_status psk_ref_attention_forward(const psk_attention_config *config, const psk_attention_shape *shape,
                                     const psk_ref_attention_tensors *tensors) {
    check_contract(config, shape, tensors);
    head_view head = {.config = config, .shape = shape, .tensors = tensors};
    PSK_TRY(for_rows(&head, forward_row));
    copy_or_zero(state_count(config, shape), tensors->state0, tensors->state1);
    if (tensors->state1 != NULL)
        for_state_keys(&head, write_state);
    return PSK_OK;
}

psk_status psk_ref_attention_backward(const psk_attention_config *config, const psk_attention_shape *shape,
                                      const psk_ref_attention_tensors *tensors) {
    check_contract(config, shape, tensors);
    const int64_t queries = shape->B * shape->H * shape->Nq, keys = shape->B * shape->Hkv * shape->Nk;
    copy_or_zero(queries * shape->h, NULL, tensors->dq);
    copy_or_zero(keys * shape->h, NULL, tensors->dk);
    copy_or_zero(keys * shape->d, NULL, tensors->dv);
    copy_or_zero(queries * shape->r, NULL, tensors->da);
    copy_or_zero(keys * shape->r, NULL, tensors->db);
    copy_or_zero(state_count(config, shape), tensors->dstate1, tensors->dstate0);
    head_view head = {.config = config, .shape = shape, .tensors = tensors};
    PSK_TRY(for_rows(&head, backward_row));
    if (tensors->dstate1 != NULL)
        for_state_keys(&head, write_state_backward);
    return PSK_OK;
}
