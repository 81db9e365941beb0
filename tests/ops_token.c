/* Tests of the operations on each token by itself. */
#include "ops_harness.h"

#include <math.h>

static void scale(float *x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* Mean, and 1 / sqrt(variance + eps), of each row. */
static void moments(const float *x, int64_t rows, int64_t n, float *mean, float *rstd) {
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0, squares = 0;
        for (int64_t j = 0; j < n; j++)
            sum += x[i * n + j];
        for (int64_t j = 0; j < n; j++)
            squares += (x[i * n + j] - sum / (double)n) * (x[i * n + j] - sum / (double)n);
        mean[i] = (float)(sum / (double)n);
        rstd[i] = (float)(1 / sqrt(squares / (double)n + 1e-5));
    }
}

#define ROWS_BY_N                                                                                                      \
    /* rows, n */ {0, 5}, {1, 1}, {3, 1}, {1, 3}, {5, 7}, {13, 16}, {7, 63}, {5, 64}, {3, 65}, {2, 1031}, {301, 96}, { \
        1200, 33                                                                                                       \
    }

static const int64_t cases_layernorm_forward[][OPS_MAX_SIZES] = {ROWS_BY_N, {2, 2}, {9, 768, 10}};

/* s[2]: mean of the rows, in their standard deviations; variant 1: in place */
static psk_status run_layernorm_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], n = s[1];
    float *x = ops_new(run, "x", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(rows, n));
    const float *weight = ops_new(run, "weight", OPS_INPUT, ops_flat(n)),
                *bias = ops_new(run, "bias", OPS_INPUT, ops_flat(n));
    float *y = variant == 1 ? x : ops_new(run, "y", OPS_OUTPUT, ops_packed(rows, n));
    float *mean = ops_new(run, "mean", OPS_OUTPUT, ops_flat(rows)),
          *rstd = ops_new(run, "rstd", OPS_OUTPUT, ops_flat(rows));
    for (int64_t i = 0; i < rows * n; i++)
        x[i] += (float)s[2];
    /* x - mean loses the digits that a large mean takes. Beside deviations of 1 the rounding of mean errs by u |mean|,
     * and a sum one by one, whose j-th partial sum of size j |mean| is rounded by 0.3 u of that, by 0.2 u sqrt(n)
     * |mean|. */
    const double lost = (double)s[2] * (2 + 0.3 * sqrt((double)n));
    ops_rounding(run, y, 6 + lost, n);
    ops_rounding(run, mean, 2, n);
    ops_scale(run, mean, 1 / sqrt((double)n + 1));
    ops_rounding(run, rstd, 4 + lost, n);
    OPS_CALL(run, layernorm_forward, .rows = rows, .n = n, .x = x, .weight = weight, .bias = bias, .y = y, .mean = mean,
             .rstd = rstd, .eps = 1e-5F);
    return PSK_OK;
}

OPS_TEST(layernorm_forward, 2);

static const int64_t cases_layernorm_backward[][OPS_MAX_SIZES] = {ROWS_BY_N, {2, 2}, {2000, 64}};

/* variant 0: dx =, 1: dx +=, 2: dx = in place of dy */
static psk_status run_layernorm_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], n = s[1];
    const float *x = ops_new(run, "x", OPS_INPUT, ops_packed(rows, n));
    const float *weight = ops_new(run, "weight", OPS_INPUT, ops_flat(n));
    float *mean = ops_new(run, "mean", OPS_INPUT, ops_flat(rows)),
          *rstd = ops_new(run, "rstd", OPS_INPUT, ops_flat(rows));
    float *dy = ops_new(run, "dy", variant == 2 ? OPS_INOUT : OPS_INPUT, ops_packed(rows, n));
    float *dx = variant == 2 ? dy : ops_new(run, "dx", variant == 1 ? OPS_INOUT : OPS_OUTPUT, ops_packed(rows, n));
    float *dweight = ops_new(run, "dweight", OPS_INOUT, ops_flat(n)),
          *dbias = ops_new(run, "dbias", OPS_INOUT, ops_flat(n));
    moments(x, rows, n, mean, rstd);
    double largest = 1;
    for (int64_t i = 0; i < rows; i++)
        largest = fmax(largest, rstd[i]);
    ops_rounding(run, dx, 8, n);
    ops_scale(run, dx, largest); /* in rows of one or two numbers dx is what is left of numbers of size rstd */
    ops_rounding(run, dweight, 6, rows);
    ops_rounding(run, dbias, 2, rows);
    ops_scale(run, dweight, 1); /* added to numbers of size 1, from which little may be left */
    ops_scale(run, dbias, 1);
    OPS_CALL(run, layernorm_backward, .rows = rows, .n = n, .x = x, .weight = weight, .mean = mean, .rstd = rstd,
             .dy = dy, .dx = dx, .dweight = dweight, .dbias = dbias, .dx_write = variant == 1 ? PSK_ADD : PSK_SET);
    return PSK_OK;
}

static const int64_t small_layernorm_backward[][OPS_MAX_SIZES] = {{1, 3}, {3, 5}, {4, 8}};

static psk_status gradient_layernorm_backward(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], n = s[1];
    float *dx, *dweight, *dbias;
    const float *x = ops_variable_new(g, "x", rows * n, 0.5F, 1.5F, &dx);
    const float *weight = ops_variable_new(g, "weight", n, 1, 0.5F, &dweight),
                *bias = ops_variable_new(g, "bias", n, 0, 1, &dbias);
    float *y = ops_result(g, rows * n), *mean = ops_result(g, rows), *rstd = ops_result(g, rows);
    PSK_RUN(g->device, layernorm_forward, .rows = rows, .n = n, .x = x, .weight = weight, .bias = bias, .y = y,
            .mean = mean, .rstd = rstd, .eps = 1e-5F);
    const float *dy = ops_observe(g, y, rows * n);
    PSK_RUN(g->device, layernorm_backward, .rows = rows, .n = n, .x = x, .weight = weight, .mean = mean, .rstd = rstd,
            .dy = dy, .dx = dx, .dweight = dweight, .dbias = dbias, .dx_write = PSK_ADD);
    return PSK_OK;
}

OPS_TEST_GRADIENT(layernorm_backward, 3);

#define GEGLU_CASES                                                                                                    \
    ROWS_BY_N, {4, 31, 30}, {                                                                                          \
        300, 128                                                                                                       \
    }

/* s[2]: factor on x, which drives gelu into both of its ends. gelu(g) for g far below 0 is a difference that float32
 * cannot hold (1 + tanh); against the size of the others it counts for a few roundings. */
static const int64_t cases_geglu_forward[][OPS_MAX_SIZES] = {GEGLU_CASES};

static psk_status run_geglu_forward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t rows = s[0], F = s[1];
    float *x = ops_new(run, "x", OPS_INPUT, ops_packed(rows, 2 * F)),
          *y = ops_new(run, "y", OPS_OUTPUT, ops_packed(rows, F));
    scale(x, rows * 2 * F, s[2] > 0 ? (float)s[2] : 1);
    ops_rounding(run, y, 12, 0);
    OPS_CALL(run, geglu_forward, .rows = rows, .F = F, .x = x, .y = y);
    return PSK_OK;
}

OPS_TEST(geglu_forward, 1);

static const int64_t cases_geglu_backward[][OPS_MAX_SIZES] = {GEGLU_CASES};

/* variant 1: dx in place of x */
static psk_status run_geglu_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], F = s[1];
    float *x = ops_new(run, "x", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(rows, 2 * F));
    const float *dy = ops_new(run, "dy", OPS_INPUT, ops_packed(rows, F));
    float *dx = variant == 1 ? x : ops_new(run, "dx", OPS_OUTPUT, ops_packed(rows, 2 * F));
    scale(x, rows * 2 * F, s[2] > 0 ? (float)s[2] : 1);
    ops_rounding(run, dx, 16, 0);
    OPS_CALL(run, geglu_backward, .rows = rows, .F = F, .x = x, .dy = dy, .dx = dx);
    return PSK_OK;
}

static const int64_t small_geglu_backward[][OPS_MAX_SIZES] = {{1, 1}, {3, 7}};

static psk_status gradient_geglu_backward(ops_gradient *g, const int64_t *s) {
    float *dx;
    const float *x = ops_variable_new(g, "x", s[0] * 2 * s[1], 0, 1, &dx);
    float *y = ops_result(g, s[0] * s[1]);
    PSK_RUN(g->device, geglu_forward, .rows = s[0], .F = s[1], .x = x, .y = y);
    PSK_RUN(g->device, geglu_backward, .rows = s[0], .F = s[1], .x = x, .dy = ops_observe(g, y, s[0] * s[1]), .dx = dx);
    return PSK_OK;
}

OPS_TEST_GRADIENT(geglu_backward, 2);

#define LENGTHS                                                                                                        \
    {0}, {1}, {3}, {15}, {16}, {17}, {63}, {64}, {65}, {1031}, {4097}, {                                               \
        100003                                                                                                         \
    }

/* n, factor on x */
static const int64_t cases_gelu_forward[][OPS_MAX_SIZES] = {LENGTHS, {257, 30}, {257, 10000}};

/* variant 1: in place */
static psk_status run_gelu_forward(ops_run *run, const int64_t *s, int64_t variant) {
    float *x = ops_new(run, "x", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *y = variant == 1 ? x : ops_new(run, "y", OPS_OUTPUT, ops_flat(s[0]));
    scale(x, s[0], s[1] > 0 ? (float)s[1] : 1);
    ops_rounding(run, y, 12, 0);
    OPS_CALL(run, gelu_forward, .n = s[0], .x = x, .y = y);
    return PSK_OK;
}

OPS_TEST(gelu_forward, 2);

static const int64_t cases_gelu_backward[][OPS_MAX_SIZES] = {LENGTHS, {257, 30}, {257, 10000}};

/* variant 1: dx in place of dy, 2: of x */
static psk_status run_gelu_backward(ops_run *run, const int64_t *s, int64_t variant) {
    float *x = ops_new(run, "x", variant == 2 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *dy = ops_new(run, "dy", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *dx = variant == 1 ? dy : variant == 2 ? x : ops_new(run, "dx", OPS_OUTPUT, ops_flat(s[0]));
    scale(x, s[0], s[1] > 0 ? (float)s[1] : 1);
    ops_rounding(run, dx, 16, 0);
    OPS_CALL(run, gelu_backward, .n = s[0], .x = x, .dy = dy, .dx = dx);
    return PSK_OK;
}

static const int64_t small_gelu_backward[][OPS_MAX_SIZES] = {{1}, {23}};

static psk_status gradient_gelu_backward(ops_gradient *g, const int64_t *s) {
    float *dx;
    const float *x = ops_variable_new(g, "x", s[0], 0, 1.5F, &dx);
    float *y = ops_result(g, s[0]);
    PSK_RUN(g->device, gelu_forward, .n = s[0], .x = x, .y = y);
    PSK_RUN(g->device, gelu_backward, .n = s[0], .x = x, .dy = ops_observe(g, y, s[0]), .dx = dx);
    return PSK_OK;
}

OPS_TEST_GRADIENT(gelu_backward, 3);

static const int64_t cases_product_forward[][OPS_MAX_SIZES] = {LENGTHS};

/* variant 1: y in place of a, 2: of b */
static psk_status run_product_forward(ops_run *run, const int64_t *s, int64_t variant) {
    float *a = ops_new(run, "a", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *b = ops_new(run, "b", variant == 2 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *y = variant == 1 ? a : variant == 2 ? b : ops_new(run, "y", OPS_OUTPUT, ops_flat(s[0]));
    OPS_CALL(run, product_forward, .n = s[0], .a = a, .b = b, .y = y, .scale = -0.7F);
    return PSK_OK;
}

OPS_TEST(product_forward, 3);

static const int64_t cases_product_backward[][OPS_MAX_SIZES] = {LENGTHS};

/* Where da and db may lie: variant 0 apart, 1 da is b and db is a, 2 da is a and db is b, 3 da is dy, 4 db is dy */
#define PRODUCT_ALIASES 5
typedef struct product_tensors {
    float *a, *b, *dy, *da, *db;
} product_tensors;

static product_tensors product_tensors_new(ops_run *run, int64_t n, int64_t variant) {
    const ops_role role = variant == 1 || variant == 2 ? OPS_INOUT : OPS_INPUT;
    float *a = ops_new(run, "a", role, ops_flat(n)), *b = ops_new(run, "b", role, ops_flat(n));
    float *dy = ops_new(run, "dy", variant >= 3 ? OPS_INOUT : OPS_INPUT, ops_flat(n));
    if (role == OPS_INOUT)
        return (product_tensors){a, b, dy, variant == 1 ? b : a, variant == 1 ? a : b};
    float *da = variant == 3 ? dy : ops_new(run, "da", OPS_OUTPUT, ops_flat(n));
    float *db = variant == 4 ? dy : ops_new(run, "db", OPS_OUTPUT, ops_flat(n));
    return (product_tensors){a, b, dy, da, db};
}

static psk_status run_product_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const product_tensors t = product_tensors_new(run, s[0], variant);
    OPS_CALL(run, product_backward, .n = s[0], .a = t.a, .b = t.b, .dy = t.dy, .da = t.da, .db = t.db, .scale = -0.7F);
    return PSK_OK;
}

static const int64_t small_product_backward[][OPS_MAX_SIZES] = {{1}, {7}};

static psk_status gradient_product_backward(ops_gradient *g, const int64_t *s) {
    float *da, *db;
    const float *a = ops_variable_new(g, "a", s[0], 0, 1, &da), *b = ops_variable_new(g, "b", s[0], 0, 1, &db);
    float *y = ops_result(g, s[0]);
    PSK_RUN(g->device, product_forward, .n = s[0], .a = a, .b = b, .y = y, .scale = 0.3F);
    PSK_RUN(g->device, product_backward, .n = s[0], .a = a, .b = b, .dy = ops_observe(g, y, s[0]), .da = da, .db = db,
            .scale = 0.3F);
    return PSK_OK;
}

OPS_TEST_GRADIENT(product_backward, PRODUCT_ALIASES);

/* n, factor on a: into the flat ends of tanh */
static const int64_t cases_tanh_product_forward[][OPS_MAX_SIZES] = {LENGTHS, {300, 100}};

static psk_status run_tanh_product_forward(ops_run *run, const int64_t *s, int64_t variant) {
    float *a = ops_new(run, "a", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *b = ops_new(run, "b", variant == 2 ? OPS_INOUT : OPS_INPUT, ops_flat(s[0]));
    float *y = variant == 1 ? a : variant == 2 ? b : ops_new(run, "y", OPS_OUTPUT, ops_flat(s[0]));
    scale(a, s[0], s[1] > 0 ? (float)s[1] : 1);
    ops_rounding(run, y, 10, 0);
    OPS_CALL(run, tanh_product_forward, .n = s[0], .a = a, .b = b, .y = y, .c = 2.25F);
    return PSK_OK;
}

OPS_TEST(tanh_product_forward, 3);

static const int64_t cases_tanh_product_backward[][OPS_MAX_SIZES] = {LENGTHS, {300, 100}};

/* variants as for product_backward, then 5: da is y, 6: db is y */
static psk_status run_tanh_product_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t n = s[0];
    float *y = ops_new(run, "y", variant >= PRODUCT_ALIASES ? OPS_INOUT : OPS_INPUT, ops_flat(n));
    product_tensors t;
    if (variant < PRODUCT_ALIASES) {
        t = product_tensors_new(run, n, variant);
    } else {
        t = (product_tensors){.a = ops_new(run, "a", OPS_INPUT, ops_flat(n)),
                              .b = ops_new(run, "b", OPS_INPUT, ops_flat(n)),
                              .dy = ops_new(run, "dy", OPS_INPUT, ops_flat(n)),
                              .da = y,
                              .db = y};
        *(variant == PRODUCT_ALIASES ? &t.db : &t.da) = ops_new(run, "other", OPS_OUTPUT, ops_flat(n));
    }
    scale(t.a, n, s[1] > 0 ? (float)s[1] : 1);
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)(2.25 * tanh((double)t.a[i] * t.b[i] / 2.25));
    ops_rounding(run, t.da, 8, 0);
    ops_rounding(run, t.db, 8, 0);
    ops_scale(run, t.da, 1); /* 1 - t^2 near t = 1: a difference of numbers of size 1, times dy b and dy a */
    ops_scale(run, t.db, s[1] > 0 ? (double)s[1] : 1);
    OPS_CALL(run, tanh_product_backward, .n = n, .a = t.a, .b = t.b, .y = y, .dy = t.dy, .da = t.da, .db = t.db,
             .c = 2.25F);
    return PSK_OK;
}

static const int64_t small_tanh_product_backward[][OPS_MAX_SIZES] = {{1}, {7}};

static psk_status gradient_tanh_product_backward(ops_gradient *g, const int64_t *s) {
    float *da, *db;
    const float *a = ops_variable_new(g, "a", s[0], 0, 1, &da), *b = ops_variable_new(g, "b", s[0], 0, 1, &db);
    float *y = ops_result(g, s[0]);
    PSK_RUN(g->device, tanh_product_forward, .n = s[0], .a = a, .b = b, .y = y, .c = 1.5F);
    PSK_RUN(g->device, tanh_product_backward, .n = s[0], .a = a, .b = b, .y = y, .dy = ops_observe(g, y, s[0]),
            .da = da, .db = db, .c = 1.5F);
    return PSK_OK;
}

OPS_TEST_GRADIENT(tanh_product_backward, 7);

/* rows, D, V, highest position */
static const int64_t cases_embedding_forward[][OPS_MAX_SIZES] = {
    {0, 4, 3, 9},          {1, 1, 1, 1},      {5, 2, 3, 2000000},     {7, 9, 11, 100},
    {33, 65, 50, 1048577}, {16, 64, 7, 2048}, {600, 96, 300, 131072},
};

static psk_status run_embedding_forward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int32_t *tokens = ops_integers(run, "tokens", s[0], s[2]),
                  *positions = ops_integers(run, "positions", s[0], s[3]);
    const float *wte = ops_new(run, "wte", OPS_INPUT, ops_packed(s[2], s[1]));
    float *x = ops_new(run, "x", OPS_OUTPUT, ops_packed(s[0], s[1]));
    ops_rounding(run, x, 4, 0);
    OPS_CALL(run, embedding_forward, .rows = s[0], .D = s[1], .tokens = tokens, .positions = positions, .wte = wte,
             .x = x, .position_scale = 0.7f);
    return PSK_OK;
}

OPS_TEST(embedding_forward, 1);

/* rows, D, V: with few tokens one row of dwte gets many additions */
static const int64_t cases_embedding_backward[][OPS_MAX_SIZES] = {
    {0, 4, 3}, {1, 1, 1}, {9, 5, 3}, {65, 31, 2}, {64, 33, 100}, {1000, 1, 7}, {700, 130, 90},
};

static psk_status run_embedding_backward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int32_t *tokens = ops_integers(run, "tokens", s[0], s[2]);
    const float *dx = ops_new(run, "dx", OPS_INPUT, ops_packed(s[0], s[1]));
    float *dwte = ops_new(run, "dwte", OPS_INOUT, ops_packed(s[2], s[1]));
    ops_rounding(run, dwte, 2, s[0]);
    ops_scale(run, dwte, 1);
    OPS_CALL(run, embedding_backward, .rows = s[0], .D = s[1], .V = s[2], .tokens = tokens, .dx = dx, .dwte = dwte);
    return PSK_OK;
}

static const int64_t small_embedding_backward[][OPS_MAX_SIZES] = {{5, 3, 2}, {4, 2, 5}};

static psk_status gradient_embedding_backward(ops_gradient *g, const int64_t *s) {
    float *dwte;
    const int32_t *tokens = ops_gradient_integers(g, "tokens", s[0], s[2]);
    const int32_t *positions = ops_gradient_integers(g, "positions", s[0], 1000);
    const float *wte = ops_variable_new(g, "wte", s[2] * s[1], 0, 1, &dwte);
    float *x = ops_result(g, s[0] * s[1]);
    PSK_RUN(g->device, embedding_forward, .rows = s[0], .D = s[1], .tokens = tokens, .positions = positions, .wte = wte,
            .x = x, .position_scale = 0.7f);
    PSK_RUN(g->device, embedding_backward, .rows = s[0], .D = s[1], .V = s[2], .tokens = tokens,
            .dx = ops_observe(g, x, s[0] * s[1]), .dwte = dwte);
    return PSK_OK;
}

OPS_TEST_GRADIENT(embedding_backward, 1);

/* rows, V, factor on the logits. Factor 0 stands for 1. */
static const int64_t cases_cross_entropy[][OPS_MAX_SIZES] = {
    {0, 5},      {1, 1},     {3, 2},     {7, 13},         {5, 63},       {4, 64},
    {3, 65, 20}, {2, 50257}, {130, 257}, {9, 300, 10000}, {40, 1031, 3},
};

/* variant: bit 0 with bias, bit 1 logits become gradients. A third of the targets is ignored. */
static psk_status run_cross_entropy(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], V = s[1];
    const bool biased = variant & 1, gradients = variant & 2;
    float *logits = ops_new(run, "logits", gradients ? OPS_INOUT : OPS_INPUT, ops_packed(rows, V));
    float *bias = biased ? ops_new(run, "bias", OPS_INPUT, ops_flat(V)) : NULL;
    int32_t *targets = ops_integers(run, "targets", rows, V + V / 2 + 1);
    float *loss = ops_new(run, "loss", OPS_OUTPUT, ops_flat(rows));
    for (int64_t i = 0; i < rows; i++)
        targets[i] = targets[i] < V ? targets[i] : -1;
    const float factor = s[2] > 0 ? (float)s[2] : 1;
    scale(logits, rows * V, factor);
    if (biased)
        scale(bias, V, factor);
    /* adding the bias rounds a logit of size `factor`; the softmax turns that into a relative error of as many u */
    const double amplified = biased ? 2 * factor : 0;
    ops_rounding(run, loss, 8 + amplified, 0);
    if (V == 1)
        ops_scale(run, loss, factor); /* log(exp(z)) - z */
    if (gradients)
        ops_rounding(run, logits, 16 + amplified, 0);
    if (gradients && V == 1)
        ops_scale(run, logits, 1); /* softmax 1 - onehot 1 */
    OPS_CALL(run, cross_entropy, .rows = rows, .V = V, .logits = logits, .bias = bias, .targets = targets, .loss = loss,
             .scale = gradients ? 0.25F : 0);
    return PSK_OK;
}

static const int64_t small_cross_entropy[][OPS_MAX_SIZES] = {{1, 3}, {5, 4}, {3, 7}};

/* The loss is scale sum_t loss_t; the gradient of a logit is also what the bias gets, summed over the rows. */
static psk_status gradient_cross_entropy(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], V = s[1];
    static const float factor = 0.5F;
    float *dlogits, *dbias;
    float *logits = ops_variable_new(g, "logits", rows * V, 0, 1, &dlogits);
    const float *bias = ops_variable_new(g, "bias", V, 0, 1, &dbias);
    int32_t *targets = ops_gradient_integers(g, "targets", rows, V);
    float *loss = ops_result(g, rows);
    targets[rows / 2] = rows > 1 ? -1 : targets[0];
    for (int64_t i = 0; i < rows * V; i++)
        dlogits[i] = logits[i];
    PSK_RUN(g->device, cross_entropy, .rows = rows, .V = V, .logits = dlogits, .bias = bias, .targets = targets,
            .loss = loss, .scale = factor);
    for (int64_t t = 0; t < rows; t++)
        g->loss += (double)factor * loss[t];
    PSK_RUN(g->device, column_sum, .rows = rows, .n = V, .x = dlogits, .out = dbias);
    return PSK_OK;
}

OPS_TEST_GRADIENT(cross_entropy, 4);

/* n, p in percent */
static const int64_t cases_dropout[][OPS_MAX_SIZES] = {
    {0, 10}, {1, 50}, {3, 10}, {7, 0}, {63, 10}, {64, 50}, {65, 90}, {4099, 10}, {100003, 25},
};

static psk_status run_dropout(ops_run *run, const int64_t *s, int64_t variant) {
    float *x = ops_new(run, "x", OPS_INOUT, ops_flat(s[0]));
    ops_exact_zeros(run, x);
    ops_rounding(run, x, 4, 0);
    OPS_CALL(run, dropout, .n = s[0], .x = x, .p = (float)s[1] / 100, .seed = 0x123456789abcdef0u + (uint64_t)variant,
             .stream = variant == 0 ? 7 : 0xfedcba9876543210u);
    return PSK_OK;
}

static const int64_t small_dropout[][OPS_MAX_SIZES] = {{19, 40}};

static psk_status gradient_dropout(ops_gradient *g, const int64_t *s) {
    float *dx;
    float *x = ops_variable_new(g, "x", s[0], 0, 1, &dx);
    const float p = (float)s[1] / 100;
    PSK_RUN(g->device, dropout, .n = s[0], .x = x, .p = p, .seed = 3, .stream = 4);
    const float *dy = ops_observe(g, x, s[0]);
    for (int64_t i = 0; i < s[0]; i++)
        dx[i] = dy[i];
    PSK_RUN(g->device, dropout, .n = s[0], .x = dx, .p = p, .seed = 3, .stream = 4);
    return PSK_OK;
}

OPS_TEST_GRADIENT(dropout, 2);
