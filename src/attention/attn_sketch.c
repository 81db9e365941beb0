#include "attention/attn_sketch.h"

#include "attention/attn_parts.h"
#include "base/rng.h"

#include <math.h>

/* Rows worked on at once: the hidden layers of the learned form, 256 x 8 r floats, stay in L2. */
#define CHUNK 256

/* Fewer rows are not worth making the weights ready for the fused form. */
#define FUSED_ROWS 256

/* One chunk: sizes, weights and what is left of the workspace. */
typedef struct sketch_chunk {
    psk_device *device;
    const psk_attention_config *config;
    const psk_sketch_params *params;
    psk_sketch_grads *grads; /* NULL in forward */
    int64_t h, r, rows;
    psk_tile x; /* rows x h */
} sketch_chunk;

static bool is_random(const psk_attention_config *config) {
    return config->sketch == PSK_SKETCH_RANDOM || config->sketch == PSK_SKETCH_RANDOM_HADAMARD;
}

static bool is_power_of_two(int64_t n) {
    return n >= 1 && (n & (n - 1)) == 0;
}

static float inverse_root(int64_t r) {
    return (float)(1.0 / sqrt((double)r));
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

psk_status psk_sketch_check(const psk_attention_config *config, int64_t h) {
    const long long p = (long long)config->degree, r = (long long)config->sketch_size;
    if (!is_random(config))
        return PSK_OK;
    if (p < 2 || p > PSK_SKETCH_MAX_DEGREE || !is_power_of_two(config->degree))
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s sketch: degree is %lld, must be a power of two from 2 to %d; the learned sketches take any",
                        psk_sketch_name(config->sketch), p, PSK_SKETCH_MAX_DEGREE);
    if (p == 2 && r != h)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s sketch: degree 2 is s(x) = x, so sketch_size must be the head size %lld, it is %lld",
                        psk_sketch_name(config->sketch), (long long)h, r);
    if (config->sketch == PSK_SKETCH_RANDOM)
        return PSK_OK;
    if (!is_power_of_two(h))
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "random_hadamard sketch: the head size is %lld, must be a power of two; random takes any",
                        (long long)h);
    if (p >= 8 && !is_power_of_two(config->sketch_size))
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "random_hadamard sketch: sketch_size is %lld, must be a power of two at degree %lld; "
                        "random takes any",
                        r, p);
    return PSK_OK;
}

/* Random: S(x,t) = sqrt(1/r) [(S1(x,t/2) G1) * (S2(x,t/2) G2)] (Algorithm 1). The matrices of S(x,t) are
 * g[0 ... 2t-3]: those of S1, those of S2, then G1 and G2. */

static int64_t matrices_below(int64_t t) {
    return 2 * (t - 1);
}

/* out = S(x,t) for t >= 2. workspace: 2 rows x r for each of the log2 t levels of the recursion */
static psk_status random_forward(const sketch_chunk *c, int64_t t, const float *const *g, psk_tile out,
                                 float *workspace);

/* u = S1 G1 and v = S2 G2 of S(x,t). below: rows x r, then the workspace of the level below */
static psk_status random_factors(const sketch_chunk *c, int64_t t, const float *const *g, psk_tile u, psk_tile v,
                                 float *below) {
    const int64_t half = t / 2, n = matrices_below(half);
    const psk_tile s = half == 1 ? c->x : psk_tile_in(below, c->rows, c->r), factors[2] = {u, v};
    for (int64_t side = 0; side < 2; side++) {
        if (half > 1)
            PSK_TRY(random_forward(c, half, g + side * n, s, below + c->rows * c->r));
        const psk_tile G = psk_tile_in((float *)g[2 * n + side], s.cols, c->r);
        PSK_TRY(psk_tile_ab(c->device, 1, 1.0f, s, G, 0.0f, factors[side]));
    }
    return PSK_OK;
}

static psk_status random_forward(const sketch_chunk *c, int64_t t, const float *const *g, psk_tile out,
                                 float *workspace) {
    const psk_tile v = psk_tile_in(workspace, c->rows, c->r);
    PSK_TRY(random_factors(c, t, g, out, v, workspace + c->rows * c->r));
    PSK_RUN(c->device, product_forward, .n = c->rows * c->r, .a = out.data, .b = v.data, .y = out.data,
            .scale = inverse_root(c->r));
    return PSK_OK;
}

/* dx += (dS(x,t)/dx)^T dout. workspace: 3 rows x r for each level */
static psk_status random_backward(const sketch_chunk *c, int64_t t, const float *const *g, const float *dout,
                                  psk_tile dx, float *workspace) {
    const int64_t half = t / 2, n = matrices_below(half), size = c->rows * c->r;
    const psk_tile u = psk_tile_in(workspace, c->rows, c->r), v = psk_tile_in(workspace + size, c->rows, c->r);
    const psk_tile ds = psk_tile_in(workspace + 2 * size, c->rows, c->r), dfactors[2] = {v, u};
    PSK_TRY(random_factors(c, t, g, u, v, workspace + 2 * size));
    PSK_RUN(c->device, product_backward, .n = size, .a = u.data, .b = v.data, .dy = dout, .da = v.data, .db = u.data,
            .scale = inverse_root(c->r)); /* du takes the place of v, dv that of u */
    for (int64_t side = 0; side < 2; side++) {
        const psk_tile G = psk_tile_in((float *)g[2 * n + side], half == 1 ? c->h : c->r, c->r);
        if (half == 1) {
            PSK_TRY(psk_tile_abt(c->device, 1, 1.0f, dfactors[side], G, 1.0f, dx));
            continue;
        }
        PSK_TRY(psk_tile_abt(c->device, 1, 1.0f, dfactors[side], G, 0.0f, ds));
        PSK_TRY(random_backward(c, half, g + side * n, ds.data, dx, workspace + 3 * size));
    }
    return PSK_OK;
}

static int64_t random_levels(const psk_attention_config *config) {
    int64_t levels = 0;
    for (int64_t t = config->degree / 2; t > 1; t /= 2)
        levels++;
    return levels;
}

static psk_status copy_rows(const sketch_chunk *c, const float *x, float *y, psk_write write) {
    const int64_t n = c->rows * c->h;
    PSK_RUN(c->device, copy, .batch = 1, .rows = 1, .n = n, .x_ld = n, .x_stride = n, .y_ld = n, .y_stride = n, .x = x,
            .y = y, .alpha = 1.0f, .write = write);
    return PSK_OK;
}

/* Learned: s = sqrt(r) tanh(a * b / sqrt(r)) of two networks. */

/* One level of one network on a chunk, and what it computed, kept for its backward. in: h on level 0, r on level 1 */
typedef struct level_values {
    int64_t net, level;
    psk_tile x;         /* rows x in: its input */
    float *mean, *rstd; /* rows */
    psk_tile normed;    /* rows x in: LN(x) */
    psk_tile up;        /* rows x 8 r */
    psk_tile gelu;      /* rows x 8 r */
    psk_tile y;         /* rows x r */
} level_values;

static int64_t level_width(int64_t h, int64_t r, int64_t level) {
    return level == 0 ? h : r;
}

static int64_t level_floats(int64_t h, int64_t r, int64_t level) {
    return CHUNK * (2 + level_width(h, r, level) + (2 * PSK_SKETCH_EXPANSION + 1) * r);
}

/* Lays the values out at *workspace, which moves on. */
static level_values level_at(const sketch_chunk *c, int64_t net, int64_t level, psk_tile x, float **workspace) {
    const int64_t hidden = PSK_SKETCH_EXPANSION * c->r;
    level_values values = {.net = net, .level = level, .x = x, .mean = *workspace, .rstd = *workspace + CHUNK};
    values.normed = psk_tile_in(values.rstd + CHUNK, c->rows, x.cols);
    values.up = psk_tile_in(values.normed.data + CHUNK * x.cols, c->rows, hidden);
    values.gelu = psk_tile_in(values.up.data + CHUNK * hidden, c->rows, hidden);
    values.y = psk_tile_in(values.gelu.data + CHUNK * hidden, c->rows, c->r);
    *workspace += level_floats(c->h, c->r, level);
    return values;
}

/* y = down gelu(up LN(x)) */
static psk_status level_forward(const sketch_chunk *c, const level_values *values) {
    const int64_t net = values->net, level = values->level, in = values->x.cols, hidden = values->up.cols;
    const psk_tile up = psk_tile_in((float *)c->params->net[net][level].up, hidden, in);
    const psk_tile down = psk_tile_in((float *)c->params->net[net][level].down, c->r, hidden);
    PSK_RUN(c->device, layernorm_forward, .rows = c->rows, .n = in, .x = values->x.data,
            .weight = c->params->net[net][level].norm_weight, .bias = c->params->net[net][level].norm_bias,
            .y = values->normed.data, .mean = values->mean, .rstd = values->rstd, .eps = PSK_SKETCH_EPS);
    PSK_TRY(psk_tile_abt(c->device, 1, 1.0f, values->normed, up, 0.0f, values->up));
    PSK_RUN(c->device, gelu_forward, .n = c->rows * hidden, .x = values->up.data, .y = values->gelu.data);
    return psk_tile_abt(c->device, 1, 1.0f, values->gelu, down, 0.0f, values->y);
}

/* dx (=, +=) and gradients from dy. scratch: rows x 8 r, then rows x in */
static psk_status level_backward(const sketch_chunk *c, const level_values *values, psk_tile dy, float *dx,
                                 psk_write dx_write, float *scratch) {
    const int64_t net = values->net, level = values->level, in = values->x.cols, hidden = values->up.cols;
    const psk_tile up = psk_tile_in((float *)c->params->net[net][level].up, hidden, in);
    const psk_tile down = psk_tile_in((float *)c->params->net[net][level].down, c->r, hidden);
    const psk_tile dup = psk_tile_in(c->grads->net[net][level].up, hidden, in);
    const psk_tile ddown = psk_tile_in(c->grads->net[net][level].down, c->r, hidden);
    const psk_tile dhidden = psk_tile_in(scratch, c->rows, hidden);
    const psk_tile dnormed = psk_tile_in(scratch + CHUNK * hidden, c->rows, in);
    PSK_TRY(psk_tile_atb(c->device, 1, 1.0f, dy, values->gelu, 1.0f, ddown)); /* inverts y = gelu down^T */
    PSK_TRY(psk_tile_ab(c->device, 1, 1.0f, dy, down, 0.0f, dhidden));
    PSK_RUN(c->device, gelu_backward, .n = c->rows * hidden, .x = values->up.data, .dy = dhidden.data,
            .dx = dhidden.data);
    PSK_TRY(psk_tile_atb(c->device, 1, 1.0f, dhidden, values->normed, 1.0f, dup)); /* inverts LN(x) up^T */
    PSK_TRY(psk_tile_ab(c->device, 1, 1.0f, dhidden, up, 0.0f, dnormed));
    PSK_RUN(c->device, layernorm_backward, .rows = c->rows, .n = in, .x = values->x.data,
            .weight = c->params->net[net][level].norm_weight, .mean = values->mean, .rstd = values->rstd,
            .dy = dnormed.data, .dx = dx, .dweight = c->grads->net[net][level].norm_weight,
            .dbias = c->grads->net[net][level].norm_bias, .dx_write = dx_write);
    return PSK_OK;
}

/* Values of both nets; net n ends in values[n][1].y. */
static psk_status nets_forward(const sketch_chunk *c, level_values values[2][PSK_SKETCH_LEVELS], float **workspace) {
    for (int64_t net = 0; net < 2; net++) {
        psk_tile x = c->x;
        for (int64_t level = 0; level < PSK_SKETCH_LEVELS; level++) {
            values[net][level] = level_at(c, net, level, x, workspace);
            PSK_TRY(level_forward(c, &values[net][level]));
            x = values[net][level].y;
        }
    }
    return PSK_OK;
}

static psk_status learned_forward(const sketch_chunk *c, float *s, float *workspace) {
    level_values values[2][PSK_SKETCH_LEVELS];
    PSK_TRY(nets_forward(c, values, &workspace));
    PSK_RUN(c->device, tanh_product_forward, .n = c->rows * c->r, .a = values[0][PSK_SKETCH_LEVELS - 1].y.data,
            .b = values[1][PSK_SKETCH_LEVELS - 1].y.data, .y = s, .c = sqrtf((float)c->r));
    return PSK_OK;
}

static psk_status learned_backward(const sketch_chunk *c, const float *s, const float *ds, float *dx,
                                   psk_write dx_write, float *workspace) {
    level_values values[2][PSK_SKETCH_LEVELS];
    PSK_TRY(nets_forward(c, values, &workspace));
    const psk_tile a = values[0][PSK_SKETCH_LEVELS - 1].y, b = values[1][PSK_SKETCH_LEVELS - 1].y;
    PSK_RUN(c->device, tanh_product_backward, .n = c->rows * c->r, .a = a.data, .b = b.data, .y = s, .dy = ds,
            .da = b.data, .db = a.data, .c = sqrtf((float)c->r)); /* da takes the place of b, db that of a */
    for (int64_t net = 0; net < 2; net++) {
        const psk_tile dy = net == 0 ? b : a;
        for (int64_t level = PSK_SKETCH_LEVELS - 1; level > 0; level--) /* in place: all widths are r */
            PSK_TRY(level_backward(c, &values[net][level], dy, dy.data, PSK_SET, workspace));
        PSK_TRY(level_backward(c, &values[net][0], dy, dx, net == 0 ? dx_write : PSK_ADD, workspace));
    }
    return PSK_OK;
}

/* Learned linear: s = (Wa x) * (Wb x) / sqrt(r). */

static psk_status linear_factors(const sketch_chunk *c, psk_tile a, psk_tile b) {
    const psk_tile factors[2] = {a, b};
    for (int64_t side = 0; side < 2; side++) {
        const psk_tile W = psk_tile_in((float *)c->params->weight[side], c->r, c->h);
        PSK_TRY(psk_tile_abt(c->device, 1, 1.0f, c->x, W, 0.0f, factors[side]));
    }
    return PSK_OK;
}

static psk_status linear_forward(const sketch_chunk *c, float *s, float *workspace) {
    PSK_TRY(linear_factors(c, psk_tile_in(s, c->rows, c->r), psk_tile_in(workspace, c->rows, c->r)));
    PSK_RUN(c->device, product_forward, .n = c->rows * c->r, .a = s, .b = workspace, .y = s,
            .scale = inverse_root(c->r));
    return PSK_OK;
}

static psk_status linear_backward(const sketch_chunk *c, const float *ds, float *dx, psk_write dx_write,
                                  float *workspace) {
    const psk_tile a = psk_tile_in(workspace, c->rows, c->r);
    const psk_tile b = psk_tile_in(workspace + c->rows * c->r, c->rows, c->r), dfactors[2] = {b, a};
    PSK_TRY(linear_factors(c, a, b));
    PSK_RUN(c->device, product_backward, .n = c->rows * c->r, .a = a.data, .b = b.data, .dy = ds, .da = b.data,
            .db = a.data, .scale = inverse_root(c->r)); /* da takes the place of b, db that of a */
    for (int64_t side = 0; side < 2; side++) {
        const psk_tile W = psk_tile_in((float *)c->params->weight[side], c->r, c->h);
        const psk_tile dW = psk_tile_in(c->grads->weight[side], c->r, c->h);
        const float keep = side == 0 && dx_write == PSK_SET ? 0.0f : 1.0f;
        PSK_TRY(psk_tile_atb(c->device, 1, 1.0f, dfactors[side], c->x, 1.0f, dW));
        PSK_TRY(psk_tile_ab(c->device, 1, 1.0f, dfactors[side], W, keep, psk_tile_in(dx, c->rows, c->h)));
    }
    return PSK_OK;
}

int64_t psk_sketch_workspace(const psk_attention_config *config, int64_t h) {
    const int64_t r = config->sketch_size;
    if (is_random(config))
        return CHUNK * 3 * r * random_levels(config);
    if (config->sketch == PSK_SKETCH_LEARNED_LINEAR)
        return CHUNK * 2 * r;
    int64_t floats = CHUNK * (PSK_SKETCH_EXPANSION * r + larger(h, r)); /* scratch of level_backward */
    for (int64_t level = 0; level < PSK_SKETCH_LEVELS; level++)
        floats += 2 * level_floats(h, r, level);
    return floats;
}

static sketch_chunk chunk_at(psk_device *device, const psk_attention_config *config, int64_t h, int64_t rows,
                             const float *x, const psk_sketch_params *params) {
    const int64_t n = rows < CHUNK ? rows : CHUNK;
    return (sketch_chunk){.device = device,
                          .config = config,
                          .params = params,
                          .h = h,
                          .r = config->sketch_size,
                          .rows = n,
                          .x = psk_tile_in((float *)x, n, h)};
}

static psk_status chunk_forward(const sketch_chunk *c, float *s, float *workspace) {
    if (c->config->sketch == PSK_SKETCH_LEARNED)
        return learned_forward(c, s, workspace);
    if (c->config->sketch == PSK_SKETCH_LEARNED_LINEAR)
        return linear_forward(c, s, workspace);
    if (c->config->degree == 2)
        return copy_rows(c, c->x.data, s, PSK_SET);
    return random_forward(c, c->config->degree / 2, c->params->g, psk_tile_in(s, c->rows, c->r), workspace);
}

psk_status psk_sketch_forward(psk_device *device, const psk_attention_config *config, int64_t h, int64_t rows,
                              const float *x, const psk_sketch_params *params, float *s, float *workspace) {
    if (device->ops->fused_sketch_forward != NULL && !is_random(config) && rows >= FUSED_ROWS) {
        PSK_RUN(device, fused_sketch_forward, .config = config, .h = h, .rows = rows, .x = x, .params = params, .s = s);
        return PSK_OK;
    }
    for (int64_t row = 0; row < rows; row += CHUNK) {
        const sketch_chunk chunk = chunk_at(device, config, h, rows - row, x + row * h, params);
        PSK_TRY(chunk_forward(&chunk, s + row * chunk.r, workspace));
    }
    return PSK_OK;
}

static psk_status chunk_backward(const sketch_chunk *c, const psk_sketch_backward_args *args, const float *s,
                                 const float *ds, float *dx) {
    if (c->config->sketch == PSK_SKETCH_LEARNED)
        return learned_backward(c, s, ds, dx, args->dx_write, args->workspace);
    if (c->config->sketch == PSK_SKETCH_LEARNED_LINEAR)
        return linear_backward(c, ds, dx, args->dx_write, args->workspace);
    if (c->config->degree == 2)
        return copy_rows(c, ds, dx, args->dx_write);
    if (args->dx_write == PSK_SET)
        PSK_RUN(c->device, fill, .n = c->rows * c->h, .x = dx, .value = 0.0f);
    return random_backward(c, c->config->degree / 2, c->params->g, ds, psk_tile_in(dx, c->rows, c->h), args->workspace);
}

psk_status psk_sketch_backward(psk_device *device, const psk_attention_config *config,
                               const psk_sketch_backward_args *args) {
    if (device->ops->fused_sketch_backward != NULL && !is_random(config) && args->rows >= FUSED_ROWS) {
        PSK_RUN(device, fused_sketch_backward, .config = config, .h = args->h, .rows = args->rows, .x = args->x,
                .params = args->params, .s = (float *)args->s, .ds = args->ds, .dx = args->dx,
                .dx_write = args->dx_write, .grads = args->grads);
        return PSK_OK;
    }
    for (int64_t row = 0; row < args->rows; row += CHUNK) {
        sketch_chunk chunk = chunk_at(device, config, args->h, args->rows - row, args->x + row * args->h, args->params);
        chunk.grads = args->grads;
        PSK_TRY(
            chunk_backward(&chunk, args, args->s + row * chunk.r, args->ds + row * chunk.r, args->dx + row * args->h));
    }
    return PSK_OK;
}

int64_t psk_sketch_matrix_count(const psk_attention_config *config) {
    return config->mechanism == PSK_POLYSKETCH && is_random(config) ? matrices_below(config->degree / 2) : 0;
}

int64_t psk_sketch_matrix_rows(const psk_attention_config *config, int64_t h, int64_t j) {
    int64_t t = config->degree / 2;
    while (t > 2) {
        const int64_t n = matrices_below(t / 2);
        if (j >= 2 * n)
            return config->sketch_size; /* G1 or G2 on top of S1 and S2 */
        j %= n;
        t /= 2;
    }
    return h;
}

/* columns[0 ... n-1]: a random permutation of 0 ... n-1. */
static void shuffle(psk_rng *rng, int64_t n, int64_t *columns) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = (int64_t)psk_rng_below(rng, (uint64_t)i + 1);
        columns[i] = columns[j];
        columns[j] = i;
    }
}

static int64_t hadamard_sign(int64_t i, int64_t j) {
    int64_t sign = 1;
    for (uint64_t bits = (uint64_t)(i & j); bits != 0; bits &= bits - 1)
        sign = -sign;
    return sign;
}

/* Columns first ... of matrix (n x r) = D H[:, columns] with fresh signs D. */
static void hadamard_group(psk_rng *rng, int64_t n, int64_t r, int64_t first, const int64_t *columns, float *matrix) {
    const int64_t end = first + n < r ? first + n : r;
    for (int64_t i = 0; i < n; i++) {
        const int64_t sign = psk_rng_below(rng, 2) == 0 ? 1 : -1;
        for (int64_t c = first; c < end; c++)
            matrix[i * r + c] = (float)(sign * hadamard_sign(i, columns[c - first]));
    }
}

psk_status psk_sketch_random_init(const psk_attention_config *config, int64_t h, int64_t j, uint64_t seed,
                                  uint64_t stream, float *matrix) {
    const int64_t n = psk_sketch_matrix_rows(config, h, j), r = config->sketch_size;
    if (config->sketch == PSK_SKETCH_RANDOM) {
        psk_rng_fill_normal(matrix, n * r, 1.0f, seed, stream);
        return PSK_OK;
    }
    int64_t *columns;
    PSK_TRY(psk_alloc((size_t)n * sizeof *columns, "columns of a Hadamard matrix", (void **)&columns));
    psk_rng rng = psk_rng_make(seed, stream);
    for (int64_t first = 0; first < r; first += n) {
        shuffle(&rng, n, columns);
        hadamard_group(&rng, n, r, first, columns, matrix);
    }
    psk_free(columns);
    return PSK_OK;
}
