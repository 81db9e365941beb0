#include "reference/ref_sketch.h"

#include "base/memory.h"
#include "reference/ref_math.h"

#include <string.h>

static const double layernorm_eps = 1e-5;

/* y = W x.   W: n x m */
static void multiply(int64_t n, int64_t m, const double *W, const double *x, double *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = psk_ref_dot(m, W + i * m, x);
}

/* y = W x: dx = W^T dy, dW += dy x^T */
static void multiply_backward(int64_t n, int64_t m, const double *W, const double *x, const double *dy, double *dx,
                              double *dW) {
    memset(dx, 0, (size_t)m * sizeof *dx);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            dx[j] += W[i * m + j] * dy[i];
            dW[i * m + j] += dy[i] * x[j];
        }
}

/* Matrices that S(x, t) uses up: M(1) = 0, M(t) = 2 M(t/2) + 2. */
static int64_t matrices_of(int64_t t) {
    return 2 * (t - 1);
}

static int64_t width_of(const psk_ref_random_sketch *sketch, int64_t t) {
    return t == 1 ? sketch->h : sketch->r;
}

/* y_c = sum_i x_i G[i, c].   G: n x r */
static void project(int64_t n, int64_t r, const double *x, const double *G, double *y) {
    for (int64_t c = 0; c < r; c++) {
        y[c] = 0;
        for (int64_t i = 0; i < n; i++)
            y[c] += x[i] * G[i * r + c];
    }
}

/* y = S(x, t).   room: scratch, two factors and one row for each level of the recursion */
static void random_sketch(const psk_ref_random_sketch *sketch, int64_t t, const double *const *g, const double *x,
                          double *y, double *room);

/* The two factors of S(x, t), t >= 2: S1 G1 and S2 G2, r numbers each. */
static void random_factors(const psk_ref_random_sketch *sketch, int64_t t, const double *const *g, const double *x,
                           double *factors, double *room) {
    const int64_t r = sketch->r, half = t / 2, n = width_of(sketch, half), below = matrices_of(half);
    for (int64_t side = 0; side < 2; side++) {
        random_sketch(sketch, half, g + side * below, x, room, room + n);
        project(n, r, room, g[2 * below + side], factors + side * r);
    }
}

static void random_sketch(const psk_ref_random_sketch *sketch, int64_t t, const double *const *g, const double *x,
                          double *y, double *room) {
    const int64_t r = sketch->r;
    if (t == 1) {
        memcpy(y, x, (size_t)sketch->h * sizeof *y);
        return;
    }
    random_factors(sketch, t, g, x, room, room + 2 * r);
    for (int64_t c = 0; c < r; c++)
        y[c] = sqrt(1 / (double)r) * room[c] * room[r + c];
}

/* dx += dS(x, t)/dx dy */
static void random_sketch_backward(const psk_ref_random_sketch *sketch, int64_t t, const double *const *g,
                                   const double *x, const double *dy, double *dx, double *room) {
    const int64_t r = sketch->r;
    if (t == 1) {
        for (int64_t i = 0; i < sketch->h; i++)
            dx[i] += dy[i];
        return;
    }
    const int64_t half = t / 2, n = width_of(sketch, half), below = matrices_of(half);
    double *factors = room, *dbelow = room + 2 * r, *rest = dbelow + n;
    random_factors(sketch, t, g, x, factors, rest);
    for (int64_t side = 0; side < 2; side++) {
        const double *G = g[2 * below + side], *other = factors + (1 - side) * r;
        for (int64_t i = 0; i < n; i++) {
            dbelow[i] = 0;
            for (int64_t c = 0; c < r; c++)
                dbelow[i] += G[i * r + c] * sqrt(1 / (double)r) * other[c] * dy[c];
        }
        random_sketch_backward(sketch, half, g + side * below, x, dbelow, dx, rest);
    }
}

/* A level of the recursion keeps two factors and one row below them; log2(p) levels, forward and backward. */
static psk_status take_room(const psk_ref_random_sketch *sketch, double **room) {
    int64_t levels = 1;
    for (int64_t t = sketch->p; t > 1; t /= 2)
        levels++;
    const int64_t level = 3 * sketch->r + sketch->h;
    return psk_alloc((size_t)(2 * levels * level) * sizeof **room, "reference random sketch", (void **)room);
}

psk_status psk_ref_random_sketch_forward(const psk_ref_random_sketch *sketch, int64_t rows, const double *x,
                                         double *out) {
    double *room;
    PSK_ASSERT(sketch->p > 2 || sketch->r == sketch->h);
    PSK_TRY(take_room(sketch, &room));
    for (int64_t i = 0; i < rows; i++)
        random_sketch(sketch, sketch->p / 2, sketch->g, x + i * sketch->h, out + i * sketch->r, room);
    psk_free(room);
    return PSK_OK;
}

psk_status psk_ref_random_sketch_backward(const psk_ref_random_sketch *sketch, int64_t rows, const double *x,
                                          const double *dout, double *dx) {
    const int64_t h = sketch->h;
    double *room;
    PSK_TRY(take_room(sketch, &room));
    memset(dx, 0, (size_t)(rows * h) * sizeof *dx);
    for (int64_t i = 0; i < rows; i++)
        random_sketch_backward(sketch, sketch->p / 2, sketch->g, x + i * h, dout + i * sketch->r, dx + i * h, room);
    psk_free(room);
    return PSK_OK;
}

/* --------------------------------------------------------------------------------------------------- learned network
 */

/* What one level computes for one row, kept for its backward. */
typedef struct level_values {
    double *x;      /* in: its input, x^ after the normalisation */
    double *normal; /* in: weight x^ + bias */
    double *up;     /* hidden: before gelu */
    double *gelu;   /* hidden */
    double *y;      /* r */
    double rstd;
} level_values;

typedef struct network_values {
    level_values level[PSK_REF_LEVELS];
} network_values;

/* Two networks' values, then room for the backward of one level. */
typedef struct learned_row {
    network_values net[2];
    double *dgelu, *dnormal, *dy; /* hidden, width, width */
    void *block;
} learned_row;

static int64_t level_width(const psk_ref_learned_sketch *sketch, int64_t level) {
    return level == 0 ? sketch->h : sketch->r;
}

static int64_t widest(const psk_ref_learned_sketch *sketch) {
    return sketch->h > sketch->r ? sketch->h : sketch->r;
}

static psk_status take_learned_row(const psk_ref_learned_sketch *sketch, learned_row *row) {
    const int64_t width = widest(sketch), hidden = sketch->hidden;
    const int64_t level = 3 * width + 2 * hidden;
    PSK_TRY(psk_alloc((size_t)(2 * PSK_REF_LEVELS * level + hidden + 2 * width) * sizeof(double),
                      "reference learned sketch", &row->block));
    double *next = row->block;
    for (int64_t net = 0; net < 2; net++)
        for (int64_t l = 0; l < PSK_REF_LEVELS; l++, next += level)
            row->net[net].level[l] = (level_values){.x = next,
                                                    .normal = next + width,
                                                    .y = next + 2 * width,
                                                    .up = next + 3 * width,
                                                    .gelu = next + 3 * width + hidden};
    row->dgelu = next;
    row->dnormal = next + hidden;
    row->dy = row->dnormal + width;
    return PSK_OK;
}

/* values->x = (x - mean) rstd, normal = x^ weight + bias */
static void norm_forward(const psk_ref_level *level, int64_t n, const double *x, level_values *values) {
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < n; j++)
        mean += x[j] / (double)n;
    for (int64_t j = 0; j < n; j++)
        variance += (x[j] - mean) * (x[j] - mean) / (double)n;
    values->rstd = 1 / sqrt(variance + layernorm_eps);
    for (int64_t j = 0; j < n; j++) {
        values->x[j] = (x[j] - mean) * values->rstd;
        values->normal[j] = values->x[j] * level->norm_weight[j] + level->norm_bias[j];
    }
}

/* dx = rstd (g - mean(g) - x^ mean(g x^)), g = dnormal weight; dweight += dnormal x^, dbias += dnormal */
static void norm_backward(const psk_ref_level *level, int64_t n, const level_values *values, const double *dnormal,
                          double *dx, const psk_ref_level *gradient) {
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < n; j++) {
        mean_g += dnormal[j] * level->norm_weight[j] / (double)n;
        mean_gx += dnormal[j] * level->norm_weight[j] * values->x[j] / (double)n;
    }
    for (int64_t j = 0; j < n; j++) {
        gradient->norm_weight[j] += dnormal[j] * values->x[j];
        gradient->norm_bias[j] += dnormal[j];
        dx[j] = values->rstd * (dnormal[j] * level->norm_weight[j] - mean_g - values->x[j] * mean_gx);
    }
}

static void network_forward(const psk_ref_learned_sketch *sketch, const psk_ref_level *net, const double *x,
                            network_values *values) {
    for (int64_t l = 0; l < PSK_REF_LEVELS; l++) {
        level_values *level = &values->level[l];
        const int64_t n = level_width(sketch, l);
        norm_forward(&net[l], n, l == 0 ? x : values->level[l - 1].y, level);
        multiply(sketch->hidden, n, net[l].up, level->normal, level->up);
        for (int64_t j = 0; j < sketch->hidden; j++)
            level->gelu[j] = psk_ref_gelu(level->up[j]);
        multiply(sketch->r, sketch->hidden, net[l].down, level->gelu, level->y);
    }
}

/* row->dy: the gradient of the network's result on entry, of its input on return. */
static void network_backward(const psk_ref_learned_sketch *sketch, int64_t net, learned_row *row,
                             const psk_ref_learned_sketch *gradients) {
    for (int64_t l = PSK_REF_LEVELS - 1; l >= 0; l--) {
        const psk_ref_level *weights = &sketch->net[net][l], *gradient = &gradients->net[net][l];
        const level_values *level = &row->net[net].level[l];
        const int64_t n = level_width(sketch, l);
        multiply_backward(sketch->r, sketch->hidden, weights->down, level->gelu, row->dy, row->dgelu, gradient->down);
        for (int64_t j = 0; j < sketch->hidden; j++)
            row->dgelu[j] *= psk_ref_gelu_slope(level->up[j]);
        multiply_backward(sketch->hidden, n, weights->up, level->normal, row->dgelu, row->dnormal, gradient->up);
        norm_backward(weights, n, level, row->dnormal, row->dy, gradient);
    }
}

/* The two factors a(x) and b(x) of a row. */
static void learned_factors(const psk_ref_learned_sketch *sketch, const double *x, learned_row *row, const double **a,
                            const double **b) {
    for (int64_t net = 0; net < 2; net++)
        network_forward(sketch, sketch->net[net], x, &row->net[net]);
    *a = row->net[0].level[PSK_REF_LEVELS - 1].y;
    *b = row->net[1].level[PSK_REF_LEVELS - 1].y;
}

psk_status psk_ref_learned_sketch_forward(const psk_ref_learned_sketch *sketch, int64_t rows, const double *x,
                                          double *out) {
    const int64_t r = sketch->r;
    const double root = sqrt((double)r), *a, *b;
    learned_row row;
    PSK_TRY(take_learned_row(sketch, &row));
    for (int64_t i = 0; i < rows; i++) {
        learned_factors(sketch, x + i * sketch->h, &row, &a, &b);
        for (int64_t c = 0; c < r; c++)
            out[i * r + c] = root * tanh(a[c] * b[c] / root);
    }
    psk_free(row.block);
    return PSK_OK;
}

psk_status psk_ref_learned_sketch_backward(const psk_ref_learned_sketch *sketch, int64_t rows, const double *x,
                                           const double *dout, double *dx, const psk_ref_learned_sketch *gradients) {
    const int64_t h = sketch->h, r = sketch->r;
    const double root = sqrt((double)r), *factor[2];
    learned_row row;
    PSK_TRY(take_learned_row(sketch, &row));
    memset(dx, 0, (size_t)(rows * h) * sizeof *dx);
    for (int64_t i = 0; i < rows; i++) {
        learned_factors(sketch, x + i * h, &row, &factor[0], &factor[1]);
        for (int64_t net = 0; net < 2; net++) {
            for (int64_t c = 0; c < r; c++) {
                const double t = tanh(factor[0][c] * factor[1][c] / root);
                row.dy[c] = dout[i * r + c] * (1 - t * t) * factor[1 - net][c];
            }
            network_backward(sketch, net, &row, gradients);
            for (int64_t j = 0; j < h; j++)
                dx[i * h + j] += row.dy[j];
        }
    }
    psk_free(row.block);
    return PSK_OK;
}

/* ---------------------------------------------------------------------------------------------------- learned linear
 */

void psk_ref_linear_sketch_forward(const psk_ref_linear_sketch *sketch, int64_t rows, const double *x, double *out) {
    const int64_t h = sketch->h, r = sketch->r;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < r; c++) {
            const double a = psk_ref_dot(h, sketch->weight[0] + c * h, x + i * h);
            const double b = psk_ref_dot(h, sketch->weight[1] + c * h, x + i * h);
            out[i * r + c] = a * b / sqrt((double)r);
        }
}

void psk_ref_linear_sketch_backward(const psk_ref_linear_sketch *sketch, int64_t rows, const double *x,
                                    const double *dout, double *dx, const psk_ref_linear_sketch *gradients) {
    const int64_t h = sketch->h, r = sketch->r;
    memset(dx, 0, (size_t)(rows * h) * sizeof *dx);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < r; c++)
            for (int64_t side = 0; side < 2; side++) {
                const double other = psk_ref_dot(h, sketch->weight[1 - side] + c * h, x + i * h);
                const double dfactor = dout[i * r + c] * other / sqrt((double)r);
                for (int64_t j = 0; j < h; j++) {
                    dx[i * h + j] += dfactor * sketch->weight[side][c * h + j];
                    gradients->weight[side][c * h + j] += dfactor * x[i * h + j];
                }
            }
}

/* --------------------------------------------------------------------------------------------------------- performer
 */

static const double favor_floor = 1e-6;

/* exp(<x', w> - |x'|^2 / 2) */
static double favor_power(const psk_ref_performer *performer, const double *x, int64_t w) {
    const int64_t h = performer->h;
    const double fourth_root = pow((double)h, 0.25);
    return exp(psk_ref_dot(h, x, performer->projection + w * h) / fourth_root -
               psk_ref_dot(h, x, x) / (2 * fourth_root * fourth_root));
}

void psk_ref_performer_forward(const psk_ref_performer *performer, int64_t rows, const double *x, double *f) {
    const int64_t h = performer->h, m = performer->m;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t w = 0; w < m; w++)
            f[i * m + w] = (favor_power(performer, x + i * h, w) + favor_floor) / sqrt((double)m);
}

/* dx = sum_w df_w exp(.) / sqrt(m) (w / h^(1/4) - x / sqrt(h)) */
void psk_ref_performer_backward(const psk_ref_performer *performer, int64_t rows, const double *x, const double *df,
                                double *dx) {
    const int64_t h = performer->h, m = performer->m;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < h; j++) {
            dx[i * h + j] = 0;
            for (int64_t w = 0; w < m; w++)
                dx[i * h + j] +=
                    df[i * m + w] * favor_power(performer, x + i * h, w) / sqrt((double)m) *
                    (performer->projection[w * h + j] / pow((double)h, 0.25) - x[i * h + j] / sqrt((double)h));
        }
}
