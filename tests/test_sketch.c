/* Sketches and features against their formulas, and what makes them sketches. */
#include "support.h"

#include "attention/attn_performer.h"
#include "attention/attn_sketch.h"
#include "base/rng.h"
#include "reference/ref_sketch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED         20231017u
#define LIMIT        1e-5
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The CPU device with each of its instruction sets; "" is the best. */
static const struct {
    const char *name, *isa;
} devices[] = {{"reference", ""}, {"cpu", ""}, {"cpu", "avx512"}, {"cpu", "avx2"}, {"cpu", "baseline"}};
#define DEVICES COUNT(devices)

static const int64_t row_counts[] = {1, 2, 255, 256, 257, 600}; /* around the chunk of the implementation */

static double *to_double(const float *x, int64_t n) {
    double *y = test_malloc((size_t)(n + 1) * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
    return y;
}

static double *zeros(int64_t n) {
    double *y = test_malloc((size_t)(n + 1) * sizeof *y);
    memset(y, 0, (size_t)(n + 1) * sizeof *y);
    return y;
}

static psk_attention_config sketch_config(psk_sketch sketch, int64_t degree, int64_t r) {
    psk_attention_config config = psk_attention_config_default();
    config.sketch = sketch;
    config.degree = degree;
    config.sketch_size = r;
    return config;
}

/* One run of one form: inputs, results, and the same of the oracle. */
typedef struct sketch_run {
    psk_device *device;
    psk_attention_config config;
    int64_t h, rows;
    float *x, *s, *ds, *dx, *workspace;
    double *want_s, *want_dx; /* filled by the caller */
} sketch_run;

static sketch_run start_run(psk_device *device, const psk_attention_config *config, int64_t h, int64_t rows) {
    const int64_t r = config->sketch_size;
    PSK_TEST_OK(psk_sketch_check(config, h));
    return (sketch_run){.device = device,
                        .config = *config,
                        .h = h,
                        .rows = rows,
                        .x = psk_test_random(rows * h, SEED, "x"),
                        .s = psk_test_buffer(rows * r),
                        .ds = psk_test_random(rows * r, SEED, "ds"),
                        .dx = psk_test_buffer(rows * h),
                        .workspace = psk_test_buffer(psk_sketch_workspace(config, h)),
                        .want_s = zeros(rows * r),
                        .want_dx = zeros(rows * h)};
}

static void end_run(sketch_run *run) {
    psk_test_free(run->x);
    psk_test_free(run->s);
    psk_test_free(run->ds);
    psk_test_free(run->dx);
    psk_test_free(run->workspace);
    test_free(run->want_s);
    test_free(run->want_dx);
}

/* Forward, backward with =, then again with +=, whose dx must be twice as much and whose weights' gradients too. */
static void check_run(sketch_run *run, const psk_sketch_params *params, psk_sketch_grads *grads) {
    const int64_t n = run->rows * run->config.sketch_size, nx = run->rows * run->h;
    psk_sketch_backward_args args = {.h = run->h,
                                     .rows = run->rows,
                                     .x = run->x,
                                     .s = run->s,
                                     .ds = run->ds,
                                     .params = params,
                                     .dx = run->dx,
                                     .dx_write = PSK_SET,
                                     .grads = grads,
                                     .workspace = run->workspace};
    PSK_TEST_OK(
        psk_sketch_forward(run->device, &run->config, run->h, run->rows, run->x, params, run->s, run->workspace));
    PSK_TEST_AT_MOST(psk_test_relative_rms_double(run->s, run->want_s, n), LIMIT);
    PSK_TEST_OK(psk_sketch_backward(run->device, &run->config, &args));
    PSK_TEST_AT_MOST(psk_test_relative_rms_double(run->dx, run->want_dx, nx), LIMIT);
    args.dx_write = PSK_ADD;
    PSK_TEST_OK(psk_sketch_backward(run->device, &run->config, &args));
    for (int64_t i = 0; i < nx; i++)
        run->want_dx[i] *= 2;
    PSK_TEST_AT_MOST(psk_test_relative_rms_double(run->dx, run->want_dx, nx), LIMIT);
}

static void check_random(psk_device *device, psk_sketch form, int64_t degree, int64_t h, int64_t r, int64_t rows) {
    const psk_attention_config config = sketch_config(form, degree, r);
    sketch_run run = start_run(device, &config, h, rows);
    psk_sketch_params params = {0};
    float *matrices[PSK_MAX_SKETCH_MATRICES];
    const double *want[PSK_MAX_SKETCH_MATRICES + 1];
    const int64_t count = psk_sketch_matrix_count(&config);
    assert_int_equal(count, degree - 2);
    for (int64_t j = 0; j < count; j++) {
        const int64_t n = psk_sketch_matrix_rows(&config, h, j) * r;
        params.g[j] = matrices[j] = psk_test_buffer(n);
        PSK_TEST_OK(psk_sketch_random_init(&config, h, j, SEED, (uint64_t)j, matrices[j]));
        want[j] = to_double(matrices[j], n);
    }
    const psk_ref_random_sketch reference = {h, r, degree, want};
    double *x = to_double(run.x, rows * h), *ds = to_double(run.ds, rows * r);
    PSK_TEST_OK(psk_ref_random_sketch_forward(&reference, rows, x, run.want_s));
    PSK_TEST_OK(psk_ref_random_sketch_backward(&reference, rows, x, ds, run.want_dx));
    check_run(&run, &params, NULL);
    for (int64_t j = 0; j < count; j++) {
        psk_test_free(matrices[j]);
        test_free((void *)want[j]);
    }
    test_free(x);
    test_free(ds);
    end_run(&run);
}

static void each_device(void (*check)(psk_device *device)) {
    for (size_t i = 0; i < DEVICES; i++) {
        psk_device *device;
        if (*devices[i].isa != '\0')
            setenv("PSK_CPU_ISA", devices[i].isa, 1);
        const psk_status status = psk_device_create(devices[i].name, 2, &device);
        unsetenv("PSK_CPU_ISA");
        if (status == PSK_ERROR_UNSUPPORTED || status == PSK_ERROR_ARGUMENT) /* not here; not on this architecture */
            continue;
        PSK_TEST_OK(status);
        check(device);
        psk_device_free(device);
    }
}

static void check_random_sizes(psk_device *device) {
    for (size_t i = 0; i < COUNT(row_counts); i++)
        check_random(device, PSK_SKETCH_RANDOM, 4, 5, 3, row_counts[i]);
    check_random(device, PSK_SKETCH_RANDOM, 2, 7, 7, 300);
    check_random(device, PSK_SKETCH_RANDOM, 8, 16, 1, 300);
    check_random(device, PSK_SKETCH_RANDOM, 16, 1, 8, 300);
    check_random(device, PSK_SKETCH_RANDOM, 32, 5, 13, 30);
    check_random(device, PSK_SKETCH_RANDOM, 64, 16, 8, 3);
    check_random(device, PSK_SKETCH_RANDOM_HADAMARD, 4, 16, 37, 300);
    check_random(device, PSK_SKETCH_RANDOM_HADAMARD, 8, 4, 32, 30);
    check_random(device, PSK_SKETCH_RANDOM_HADAMARD, 2, 8, 8, 30);
}

static void random_equals_algorithm_1(void **state) {
    (void)state;
    each_device(check_random_sizes);
}

static void check_learned(psk_device *device, int64_t h, int64_t r, int64_t rows) {
    const psk_attention_config config = sketch_config(PSK_SKETCH_LEARNED, 4, r);
    const int64_t hidden = PSK_SKETCH_EXPANSION * r;
    sketch_run run = start_run(device, &config, h, rows);
    psk_sketch_params params;
    psk_sketch_grads grads;
    psk_ref_learned_sketch want = {h, r, hidden, {{{0}}}}, want_grads = want;
    struct {
        float *weight, *gradient;
        double *want, *want_gradient;
        int64_t n;
    } tensors[16];
    int64_t count = 0;
    for (int net = 0; net < 2; net++)
        for (int level = 0; level < PSK_SKETCH_LEVELS; level++) {
            const int64_t in = level == 0 ? h : r, sizes[] = {in, in, hidden * in, r * hidden};
            const float **weights[] = {&params.net[net][level].norm_weight, &params.net[net][level].norm_bias,
                                       &params.net[net][level].up, &params.net[net][level].down};
            float **gradients[] = {&grads.net[net][level].norm_weight, &grads.net[net][level].norm_bias,
                                   &grads.net[net][level].up, &grads.net[net][level].down};
            psk_ref_level *w = &want.net[net][level], *dw = &want_grads.net[net][level];
            double **wants[] = {&w->norm_weight, &w->norm_bias, &w->up, &w->down};
            double **want_gradients[] = {&dw->norm_weight, &dw->norm_bias, &dw->up, &dw->down};
            for (int part = 0; part < 4; part++, count++) {
                const int64_t n = sizes[part];
                tensors[count].n = n;
                char name[32];
                snprintf(name, sizeof name, "weight %d", (int)count);
                tensors[count].weight = psk_test_random(n, SEED, name);
                for (int64_t i = 0; i < n && part >= 2; i++) /* of the size of their initial values */
                    tensors[count].weight[i] /= sqrtf((float)(part == 2 ? in : hidden));
                tensors[count].gradient = psk_test_buffer(n);
                memset(tensors[count].gradient, 0, (size_t)n * sizeof(float));
                tensors[count].want = to_double(tensors[count].weight, n);
                tensors[count].want_gradient = zeros(n);
                *weights[part] = tensors[count].weight;
                *gradients[part] = tensors[count].gradient;
                *wants[part] = tensors[count].want;
                *want_gradients[part] = tensors[count].want_gradient;
            }
        }
    double *x = to_double(run.x, rows * h), *ds = to_double(run.ds, rows * r);
    PSK_TEST_OK(psk_ref_learned_sketch_forward(&want, rows, x, run.want_s));
    PSK_TEST_OK(psk_ref_learned_sketch_backward(&want, rows, x, ds, run.want_dx, &want_grads));
    check_run(&run, &params, &grads);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < tensors[i].n; j++)
            tensors[i].want_gradient[j] *= 2; /* backward ran twice */
        PSK_TEST_AT_MOST(psk_test_relative_rms_double(tensors[i].gradient, tensors[i].want_gradient, tensors[i].n),
                         LIMIT);
        psk_test_free(tensors[i].weight);
        psk_test_free(tensors[i].gradient);
        test_free(tensors[i].want);
        test_free(tensors[i].want_gradient);
    }
    test_free(x);
    test_free(ds);
    end_run(&run);
}

static void check_learned_sizes(psk_device *device) {
    for (size_t i = 0; i < COUNT(row_counts); i++)
        check_learned(device, 7, 3, row_counts[i]);
    check_learned(device, 16, 8, 300);
    check_learned(device, 5, 12, 40);
}

static void learned_equals_its_formula(void **state) {
    (void)state;
    each_device(check_learned_sizes);
}

static void check_linear(psk_device *device, int64_t h, int64_t r, int64_t rows) {
    const psk_attention_config config = sketch_config(PSK_SKETCH_LEARNED_LINEAR, 4, r);
    sketch_run run = start_run(device, &config, h, rows);
    float *weight[2] = {psk_test_random(r * h, SEED, "Wa"), psk_test_random(r * h, SEED, "Wb")};
    float *gradient[2] = {psk_test_buffer(r * h), psk_test_buffer(r * h)};
    psk_sketch_params params = {.weight = {weight[0], weight[1]}};
    psk_sketch_grads grads = {.weight = {gradient[0], gradient[1]}};
    const psk_ref_linear_sketch want = {h, r, {to_double(weight[0], r * h), to_double(weight[1], r * h)}};
    const psk_ref_linear_sketch want_grads = {h, r, {zeros(r * h), zeros(r * h)}};
    double *x = to_double(run.x, rows * h), *ds = to_double(run.ds, rows * r);
    memset(gradient[0], 0, (size_t)(r * h) * sizeof(float));
    memset(gradient[1], 0, (size_t)(r * h) * sizeof(float));
    psk_ref_linear_sketch_forward(&want, rows, x, run.want_s);
    psk_ref_linear_sketch_backward(&want, rows, x, ds, run.want_dx, &want_grads);
    check_run(&run, &params, &grads);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < r * h; i++)
            want_grads.weight[side][i] *= 2; /* backward ran twice */
        PSK_TEST_AT_MOST(psk_test_relative_rms_double(gradient[side], want_grads.weight[side], r * h), LIMIT);
        psk_test_free(weight[side]);
        psk_test_free(gradient[side]);
        test_free(want.weight[side]);
        test_free(want_grads.weight[side]);
    }
    test_free(x);
    test_free(ds);
    end_run(&run);
}

static void check_linear_sizes(psk_device *device) {
    for (size_t i = 0; i < COUNT(row_counts); i++)
        check_linear(device, 7, 5, row_counts[i]);
    check_linear(device, 1, 1, 30);
}

static void learned_linear_equals_its_formula(void **state) {
    (void)state;
    each_device(check_linear_sizes);
}

/* Sketches and their gradient of many rows of (h, r), with weights from a seed. */
typedef struct many_rows {
    float *s, *dx;
} many_rows;
#define MANY 1037
#define WIDE 33
#define SIZE 13

static many_rows sketch_many(psk_sketch form, int threads, psk_precision precision) {
    const psk_attention_config config = sketch_config(form, 4, SIZE);
    float *x = psk_test_random(MANY * WIDE, SEED, "x"), *ds = psk_test_random(MANY * SIZE, SEED, "ds");
    many_rows out = {psk_test_buffer(MANY * SIZE), psk_test_buffer(MANY * WIDE)};
    psk_device *device;
    psk_sketch_bench *bench;
    PSK_TEST_OK(psk_device_create("cpu", threads, &device));
    PSK_TEST_OK(psk_device_set_precision(device, precision));
    PSK_TEST_OK(psk_sketch_bench_create(device, &config, WIDE, MANY, &bench));
    PSK_TEST_OK(psk_sketch_bench_run(bench, x, out.s, ds, out.dx));
    psk_sketch_bench_free(bench);
    psk_device_free(device);
    psk_test_free(x);
    psk_test_free(ds);
    return out;
}

static void free_many(many_rows rows) {
    psk_test_free(rows.s);
    psk_test_free(rows.dx);
}

static const psk_sketch learned_forms[] = {PSK_SKETCH_LEARNED, PSK_SKETCH_LEARNED_LINEAR};

static bool cpu_has_bf16(void) {
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    const bool has = device->has_bf16;
    psk_device_free(device);
    return has;
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    const int threads[] = {2, 3, 8};
    for (size_t form = 0; form < COUNT(learned_forms); form++)
        for (psk_precision precision = PSK_PRECISION_F32; precision <= (cpu_has_bf16() ? 1 : 0); precision++) {
            const many_rows want = sketch_many(learned_forms[form], 1, precision);
            for (size_t i = 0; i < COUNT(threads); i++) {
                const many_rows got = sketch_many(learned_forms[form], threads[i], precision);
                assert_memory_equal(got.s, want.s, MANY * SIZE * sizeof(float));
                assert_memory_equal(got.dx, want.dx, MANY * WIDE * sizeof(float));
                free_many(got);
            }
            free_many(want);
        }
}

/* Each of four layers rounds its operands by up to 2^-9, 2^-9 / sqrt(3) on average: some 5e-3 in all. */
static void bfloat16_is_near_float32(void **state) {
    (void)state;
    if (!cpu_has_bf16())
        skip();
    for (size_t form = 0; form < COUNT(learned_forms); form++) {
        const many_rows fine = sketch_many(learned_forms[form], 2, PSK_PRECISION_F32),
                        rounded = sketch_many(learned_forms[form], 2, PSK_PRECISION_BF16);
        const double s = psk_test_relative_rms(rounded.s, fine.s, MANY * SIZE),
                     dx = psk_test_relative_rms(rounded.dx, fine.dx, MANY * WIDE);
        print_message("%s in bfloat16: error %.1e, of the gradient %.1e\n", psk_sketch_name(learned_forms[form]), s,
                      dx);
        assert_true(s > 1e-4);
        PSK_TEST_AT_MOST(s, 1e-2);
        PSK_TEST_AT_MOST(dx, 2e-2);
        free_many(fine);
        free_many(rounded);
    }
}

static void check_performer(psk_device *device) {
    const int64_t h = 9, m = 5, rows = 70;
    float *x = psk_test_random(rows * h, SEED, "x"), *projection = psk_test_random(m * h, SEED, "projection");
    float *f = psk_test_buffer(rows * m), *df = psk_test_random(rows * m, SEED, "df"), *dx = psk_test_buffer(rows * h);
    double *want_x = to_double(x, rows * h), *want_projection = to_double(projection, m * h);
    double *want_f = zeros(rows * m), *want_df = to_double(df, rows * m), *want_dx = zeros(rows * h);
    const psk_ref_performer want = {h, m, want_projection};
    psk_ref_performer_forward(&want, rows, want_x, want_f);
    psk_ref_performer_backward(&want, rows, want_x, want_df, want_dx);
    PSK_TEST_OK(psk_performer_features_forward(device, h, m, rows, x, projection, f));
    PSK_TEST_AT_MOST(psk_test_relative_rms_double(f, want_f, rows * m), LIMIT);
    const psk_performer_backward_args args = {
        .h = h, .m = m, .rows = rows, .x = x, .projection = projection, .f = f, .df = df, .dx = dx};
    PSK_TEST_OK(psk_performer_features_backward(device, &args));
    PSK_TEST_AT_MOST(psk_test_relative_rms_double(dx, want_dx, rows * h), LIMIT);
    psk_test_free(x);
    psk_test_free(projection);
    psk_test_free(f);
    psk_test_free(df);
    psk_test_free(dx);
    test_free(want_x);
    test_free(want_projection);
    test_free(want_f);
    test_free(want_df);
    test_free(want_dx);
}

static void performer_features_equal_their_formula(void **state) {
    (void)state;
    each_device(check_performer);
}

/* Mean over `trials` independent sketches of |<s(q),s(k)>^2 - <q,k>^p| for unit q and k with <q,k> = 0.8,
 * and the mean of <s(q),s(k)> - <q,k>^(p/2) in units of its standard error. */
static double weight_error(psk_device *device, psk_sketch form, int64_t degree, int64_t r, int trials, double *bias) {
    const psk_attention_config config = sketch_config(form, degree, r);
    const int64_t h = 16;
    float x[2][16] = {{1.0f}, {0.8f, 0.6f}}, *s = psk_test_buffer(2 * r);
    float *workspace = psk_test_buffer(psk_sketch_workspace(&config, h));
    psk_sketch_params params = {0};
    float *matrices[PSK_MAX_SKETCH_MATRICES];
    const int64_t count = psk_sketch_matrix_count(&config);
    for (int64_t j = 0; j < count; j++)
        params.g[j] = matrices[j] = psk_test_buffer(psk_sketch_matrix_rows(&config, h, j) * r);
    double sum = 0, sum_squares = 0, error = 0;
    for (int trial = 0; trial < trials; trial++) {
        for (int64_t j = 0; j < count; j++)
            PSK_TEST_OK(psk_sketch_random_init(&config, h, j, SEED + (uint64_t)trial, (uint64_t)j, matrices[j]));
        PSK_TEST_OK(psk_sketch_forward(device, &config, h, 2, x[0], &params, s, workspace));
        double product = 0;
        for (int64_t c = 0; c < r; c++)
            product += (double)s[c] * s[r + c];
        const double deviation = product - pow(0.8, (double)degree / 2);
        const double weight_deviation = product * product - pow(0.8, (double)degree);
        sum += deviation;
        sum_squares += deviation * deviation;
        error += fabs(weight_deviation);
    }
    for (int64_t j = 0; j < count; j++)
        psk_test_free(matrices[j]);
    psk_test_free(s);
    psk_test_free(workspace);
    *bias = fabs(sum / trials) / sqrt(sum_squares / trials / trials);
    return error / trials;
}

/* The paper's guarantee in miniature: unbiased, and the error of a weight falls like 1 / sqrt(r). */
static void error_falls_like_one_over_root_r(void **state) {
    (void)state;
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    const struct {
        psk_sketch form;
        int64_t degree, few, many; /* values of r */
        int trials;
    } sketches[] = {{PSK_SKETCH_RANDOM, 4, 64, 1024, 300},
                    {PSK_SKETCH_RANDOM_HADAMARD, 4, 64, 1024, 300},
                    {PSK_SKETCH_RANDOM, 8, 64, 256, 100},
                    {PSK_SKETCH_RANDOM_HADAMARD, 8, 64, 256, 100}};
    for (size_t i = 0; i < COUNT(sketches); i++) {
        const int64_t degree = sketches[i].degree, few = sketches[i].few, many = sketches[i].many;
        double bias[2];
        const double coarse = weight_error(device, sketches[i].form, degree, few, sketches[i].trials, &bias[0]);
        const double fine = weight_error(device, sketches[i].form, degree, many, sketches[i].trials, &bias[1]);
        const double fall = coarse / fine / sqrt((double)many / (double)few);
        print_message("%s degree %d: error %.3f at r %d, %.3f at r %d; bias %.1f and %.1f sigma\n",
                      psk_sketch_name(sketches[i].form), (int)degree, coarse, (int)few, fine, (int)many, bias[0],
                      bias[1]);
        PSK_TEST_AT_MOST(bias[0], 4);
        PSK_TEST_AT_MOST(bias[1], 4);
        PSK_TEST_AT_MOST(fall, 1.5);
        PSK_TEST_AT_MOST(1 / 1.5, fall);
    }
    psk_device_free(device);
}

/* Columns of D H: entries +-1, and orthogonal within each group of h columns. */
static void hadamard_columns_are_orthogonal(void **state) {
    (void)state;
    const int64_t h = 8, r = 19;
    const psk_attention_config config = sketch_config(PSK_SKETCH_RANDOM_HADAMARD, 4, r);
    float *g = psk_test_buffer(h * r);
    PSK_TEST_OK(psk_sketch_random_init(&config, h, 0, SEED, 1, g));
    for (int64_t i = 0; i < h * r; i++)
        assert_true(g[i] == 1.0f || g[i] == -1.0f);
    for (int64_t a = 0; a < r; a++)
        for (int64_t b = 0; b < a; b++) {
            float product = 0;
            for (int64_t i = 0; i < h; i++)
                product += g[i * r + a] * g[i * r + b];
            assert_true(product == 0.0f || a / h != b / h);
        }
    psk_test_free(g);
}

static void matrices_are_a_function_of_seed_and_stream(void **state) {
    (void)state;
    const psk_sketch forms[] = {PSK_SKETCH_RANDOM, PSK_SKETCH_RANDOM_HADAMARD};
    for (size_t i = 0; i < COUNT(forms); i++) {
        const psk_attention_config config = sketch_config(forms[i], 4, 16);
        float g[4][8 * 16];
        const uint64_t seeds[] = {1, 1, 2, 1}, streams[] = {5, 5, 5, 6};
        for (int j = 0; j < 4; j++)
            PSK_TEST_OK(psk_sketch_random_init(&config, 8, 0, seeds[j], streams[j], g[j]));
        assert_memory_equal(g[0], g[1], sizeof g[0]);
        assert_memory_not_equal(g[0], g[2], sizeof g[0]);
        assert_memory_not_equal(g[0], g[3], sizeof g[0]);
    }
}

static void matrices_have_the_shapes_of_the_recursion(void **state) {
    (void)state;
    const psk_attention_config config = sketch_config(PSK_SKETCH_RANDOM, 16, 3);
    static const int64_t rows[] = {7, 7, 7, 7, 3, 3, 7, 7, 7, 7, 3, 3, 3, 3};
    assert_int_equal(psk_sketch_matrix_count(&config), COUNT(rows));
    for (size_t j = 0; j < COUNT(rows); j++)
        assert_int_equal(psk_sketch_matrix_rows(&config, 7, (int64_t)j), rows[j]);
    psk_attention_config other = sketch_config(PSK_SKETCH_LEARNED, 4, 3);
    assert_int_equal(psk_sketch_matrix_count(&other), 0);
    other = config;
    other.mechanism = PSK_PERFORMER;
    assert_int_equal(psk_sketch_matrix_count(&other), 0);
}

static psk_status check_form(psk_sketch sketch, int64_t degree, int64_t r, int64_t h) {
    const psk_attention_config config = sketch_config(sketch, degree, r);
    return psk_sketch_check(&config, h);
}

static void check_refuses(void **state) {
    (void)state;
    PSK_TEST_OK(check_form(PSK_SKETCH_RANDOM, 4, 5, 7));
    PSK_TEST_OK(check_form(PSK_SKETCH_LEARNED, 6, 5, 7));
    PSK_TEST_FAILS(check_form(PSK_SKETCH_RANDOM, 6, 5, 7), PSK_ERROR_ARGUMENT, "degree", "6", "power of two");
    PSK_TEST_FAILS(check_form(PSK_SKETCH_RANDOM, 128, 5, 7), PSK_ERROR_ARGUMENT, "degree", "128", "64");
    PSK_TEST_FAILS(check_form(PSK_SKETCH_RANDOM, 2, 5, 7), PSK_ERROR_ARGUMENT, "degree 2", "5", "7");
    PSK_TEST_FAILS(check_form(PSK_SKETCH_RANDOM_HADAMARD, 4, 5, 7), PSK_ERROR_ARGUMENT, "head size", "7");
    PSK_TEST_OK(check_form(PSK_SKETCH_RANDOM_HADAMARD, 4, 5, 8));
    PSK_TEST_FAILS(check_form(PSK_SKETCH_RANDOM_HADAMARD, 8, 5, 8), PSK_ERROR_ARGUMENT, "sketch_size", "5", "8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_equals_algorithm_1),
        cmocka_unit_test(learned_equals_its_formula),
        cmocka_unit_test(learned_linear_equals_its_formula),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bfloat16_is_near_float32),
        cmocka_unit_test(performer_features_equal_their_formula),
        cmocka_unit_test(error_falls_like_one_over_root_r),
        cmocka_unit_test(hadamard_columns_are_orthogonal),
        cmocka_unit_test(matrices_are_a_function_of_seed_and_stream),
        cmocka_unit_test(matrices_have_the_shapes_of_the_recursion),
        cmocka_unit_test(check_refuses),
    };
    const struct CMUnitTest vectors[] = {cmocka_unit_test(bfloat16_is_near_float32)};
    int failures = cmocka_run_group_tests_name("sketch", tests, NULL, NULL);
    if (psk_test_force_isa("avx512")) /* the best may have been tiles */
        failures += cmocka_run_group_tests_name("sketch, bfloat16 in vectors", vectors, NULL, NULL);
    return failures;
}
