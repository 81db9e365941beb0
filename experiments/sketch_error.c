/* How near sketched attention comes to polynomial attention, and the block algorithm to the running sum.
 *     sketch_error [--json FILE] [--seeds S] [--tokens N] [--length N]
 * Three tables, as Markdown; --json appends every figure to FILE, an object a line. Rows are LayerNormed Gaussians of
 * h = 64 numbers, so <x,x> = h. What is averaged is averaged over seeds (other rows and other sketches), and its
 * standard error is that between seeds. What the figures mean: docs/quality.md. */
#include "attention/attn_sketch.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEAD = 64, LOCAL_BLOCK = 64, LARGEST_SKETCH = 128 };
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const psk_sketch forms[] = {PSK_SKETCH_RANDOM, PSK_SKETCH_RANDOM_HADAMARD};
static const int64_t degrees[] = {4, 8};
static const int64_t sketch_sizes[] = {8, 16, 32, 64, 128};

typedef struct settings {
    const char *json;
    int64_t seeds, tokens, length; /* length: of the sequence of the third table */
    FILE *out;                     /* NULL: no file */
    psk_device *device;
} settings;

/* ---------------------------------------------------------------------------------------------------------- averages
 */

/* One number a seed. */
typedef struct samples {
    double sum, squares;
    int64_t count;
} samples;

static void add(samples *s, double value) {
    s->sum += value;
    s->squares += value * value;
    s->count++;
}

static double mean(const samples *s) {
    return s->sum / (double)s->count;
}

/* Standard error of the mean; 0 for one number. */
static double standard_error(const samples *s) {
    const double n = (double)s->count, m = mean(s);
    return s->count < 2 ? 0.0 : sqrt(fmax(0.0, s->squares / n - m * m) / (n - 1.0));
}

/* ,"NAME": mean, "NAME_stderr": error */
static void write_samples(FILE *out, const char *name, const samples *s) {
    fprintf(out, ", \"%s\": %.6g, \"%s_stderr\": %.2g", name, mean(s), name, standard_error(s));
}

/* -------------------------------------------------------------------------------------------------------------- rows
 */

/* What a query is about. */
typedef enum { UNRELATED, RECENT, ANYWHERE, QUERIES } query_kind;
static const char *const query_names[] = {"unrelated", "recent", "anywhere"};

/* The inputs of one seed: rows of HEAD numbers. */
typedef struct rows {
    int64_t N;
    float *q; /* QUERIES x N: near to no key, to one of the last LOCAL_BLOCK, to any of those before */
    float *k, *v;
} rows;

static void layernorm(float *x) {
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < HEAD; i++)
        sum += (double)x[i];
    for (int i = 0; i < HEAD; i++)
        squares += pow((double)x[i] - sum / HEAD, 2.0);
    for (int i = 0; i < HEAD; i++)
        x[i] = (float)(((double)x[i] - sum / HEAD) / sqrt(squares / HEAD));
}

static void release_rows(rows *in) {
    psk_free(in->q);
    psk_free(in->k);
    psk_free(in->v);
}

static psk_status allocate(int64_t count, float **out) {
    int64_t bytes;
    PSK_TRY(psk_size_mul(count, (int64_t)sizeof(float), &bytes));
    return psk_alloc((size_t)bytes, "numbers of an experiment", (void **)out);
}

static psk_status allocate_rows(int64_t N, rows *in) {
    in->N = N;
    PSK_TRY(allocate(QUERIES * N * HEAD, &in->q));
    PSK_TRY(allocate(N * HEAD, &in->k));
    return allocate(N * HEAD, &in->v);
}

/* Queries about a key are LayerNorm(0.95 k + sqrt(1 - 0.95^2) noise). */
static void draw_rows(rows *in, uint64_t seed) {
    const int64_t N = in->N;
    psk_rng rng = psk_rng_make(seed, psk_rng_stream("which key"));
    psk_rng_fill_normal(in->q, QUERIES * N * HEAD, 1.0f, seed, psk_rng_stream("q"));
    psk_rng_fill_normal(in->k, N * HEAD, 1.0f, seed, psk_rng_stream("k"));
    psk_rng_fill_normal(in->v, N * HEAD, 1.0f, seed, psk_rng_stream("v"));
    for (int64_t i = 0; i < N; i++)
        layernorm(in->k + i * HEAD);
    for (int64_t row = 0; row < QUERIES * N; row++) {
        const query_kind kind = (query_kind)(row / N);
        const int64_t i = row % N, past = kind == RECENT && i + 1 > LOCAL_BLOCK ? LOCAL_BLOCK : i + 1;
        const float *key = in->k + (i - (int64_t)psk_rng_below(&rng, (uint64_t)past)) * HEAD;
        float *q = in->q + row * HEAD;
        for (int c = 0; c < HEAD && kind != UNRELATED; c++)
            q[c] = 0.95f * key[c] + sqrtf(1.0f - 0.95f * 0.95f) * q[c];
        layernorm(q);
    }
}

/* ----------------------------------------------------------------------------------------------------------- weights
 */

/* Inner products <s(q),s(k)> in units of h^(p/2) and weights, their squares, in units of h^p: that is what a key has
 * with itself. X(name, heading of its column) */
#define WEIGHT_MEASURES(X)                                                                                             \
    X(self_inner_rms, "own inner product, rms error")                                                                  \
    X(self_rms, "own weight, rms error")                                                                               \
    X(self_bias, "its bias")                                                                                           \
    X(unrelated_inner_rms, "unrelated keys' inner product, rms error")                                                 \
    X(unrelated_rms, "their weight, rms error")                                                                        \
    X(unrelated_mean, "its mean")                                                                                      \
    X(unrelated_exact, "exact mean")

#define ENUM(name, heading) name,
typedef enum { WEIGHT_MEASURES(ENUM) MEASURES } weight_measure;
#undef ENUM
#define NAME(name, heading) #name,
static const char *const measure_names[] = {WEIGHT_MEASURES(NAME)};
#undef NAME

/* The sketches of one seed, and the workspace of everything that reads them. */
typedef struct sketches {
    psk_attention_config config;
    float *a, *b;               /* QUERIES x N x r, N x r */
    float *matrices, *scratch;  /* of the sketch */
    float *products, *exact;    /* N x N: <s(q),s(k)> and <q,k> of unrelated queries */
    float *out, *exact_out;     /* QUERIES x N x HEAD */
    float *normaliser, *state1; /* QUERIES x N; of the third table */
} sketches;

static void release_sketches(sketches *s) {
    float *const blocks[] = {s->a,     s->b,   s->matrices,  s->scratch,    s->products,
                             s->exact, s->out, s->exact_out, s->normaliser, s->state1};
    for (size_t i = 0; i < COUNT(blocks); i++)
        psk_free(blocks[i]);
}

static psk_attention_config sketch_config(psk_sketch form, int64_t degree, int64_t r) {
    psk_attention_config config = psk_attention_config_default();
    config.sketch = form;
    config.degree = degree;
    config.sketch_size = r;
    config.block_size = LOCAL_BLOCK;
    return config;
}

/* Room for the largest sketch. */
static psk_status allocate_sketches(int64_t N, sketches *s) {
    int64_t scratch = 0, matrices = 0;
    for (size_t i = 0; i < COUNT(degrees); i++) {
        const psk_attention_config config = sketch_config(PSK_SKETCH_RANDOM, degrees[i], LARGEST_SKETCH);
        const int64_t needed = psk_sketch_workspace(&config, HEAD), count = psk_sketch_matrix_count(&config);
        scratch = needed > scratch ? needed : scratch;
        matrices = count > matrices ? count : matrices;
    }
    PSK_TRY(allocate(QUERIES * N * LARGEST_SKETCH, &s->a));
    PSK_TRY(allocate(N * LARGEST_SKETCH, &s->b));
    PSK_TRY(allocate(matrices * LARGEST_SKETCH * LARGEST_SKETCH, &s->matrices));
    PSK_TRY(allocate(scratch, &s->scratch));
    PSK_TRY(allocate(N * N, &s->products));
    PSK_TRY(allocate(N * N, &s->exact));
    PSK_TRY(allocate(QUERIES * N * HEAD, &s->out));
    PSK_TRY(allocate(QUERIES * N * HEAD, &s->exact_out));
    return allocate(QUERIES * N, &s->normaliser);
}

static psk_status sketch_rows(psk_device *device, const rows *in, uint64_t seed, sketches *s) {
    const psk_attention_config *config = &s->config;
    psk_sketch_params params = {0};
    for (int64_t j = 0; j < psk_sketch_matrix_count(config); j++) {
        float *g = s->matrices + j * LARGEST_SKETCH * LARGEST_SKETCH;
        PSK_TRY(psk_sketch_random_init(config, HEAD, j, seed, psk_rng_stream("g") + (uint64_t)j, g));
        params.g[j] = g;
    }
    PSK_TRY(psk_sketch_forward(device, config, HEAD, QUERIES * in->N, in->q, &params, s->a, s->scratch));
    return psk_sketch_forward(device, config, HEAD, in->N, in->k, &params, s->b, s->scratch);
}

/* products = x y^T, N x N of rows of n numbers. */
static psk_status inner_products(psk_device *device, int64_t N, int64_t n, const float *x, const float *y,
                                 float *products) {
    PSK_RUN(device, matmul, .batch = 1, .m = N, .n = N, .k = n, .a = x, .lda = n, .b = y, .ldb = n,
            .b_orientation = PSK_TRANSPOSED, .c = products, .ldc = N, .alpha = 1.0f);
    return PSK_OK;
}

static double dot(const float *x, const float *y, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* Errors of inner products and of weights, summed over pairs. */
typedef struct pair_errors {
    double half, unit; /* p/2, h^(p/2) */
    double inner_squares, weight_squares, weight_sum, mean, exact_mean;
} pair_errors;

/* <s(q),s(k)> in place of <q,k>^(p/2). */
static void add_pair(pair_errors *sums, double sketched, double exact) {
    const double got = sketched / sums->unit, want = pow(exact / HEAD, sums->half);
    const double error = got * got - want * want;
    sums->inner_squares += (got - want) * (got - want);
    sums->weight_squares += error * error;
    sums->weight_sum += error;
    sums->mean += got * got;
    sums->exact_mean += want * want;
}

static psk_status measure_weights(psk_device *device, const rows *in, sketches *s, samples *measures) {
    const int64_t N = in->N, r = s->config.sketch_size;
    const double n = (double)N, pairs = n * n;
    const double half = (double)s->config.degree / 2.0;
    pair_errors self = {.half = half, .unit = pow(HEAD, half)}, unrelated = self;
    PSK_TRY(inner_products(device, N, r, s->a, s->b, s->products));
    for (int64_t i = 0; i < N; i++) {
        const float *sketch = s->b + i * r, *key = in->k + i * HEAD;
        add_pair(&self, dot(sketch, sketch, r), dot(key, key, HEAD));
    }
    for (int64_t i = 0; i < N * N; i++)
        add_pair(&unrelated, (double)s->products[i], (double)s->exact[i]);
    add(&measures[self_inner_rms], sqrt(self.inner_squares / n));
    add(&measures[self_rms], sqrt(self.weight_squares / n));
    add(&measures[self_bias], self.weight_sum / n);
    add(&measures[unrelated_inner_rms], sqrt(unrelated.inner_squares / pairs));
    add(&measures[unrelated_rms], sqrt(unrelated.weight_squares / pairs));
    add(&measures[unrelated_mean], unrelated.mean / pairs);
    add(&measures[unrelated_exact], unrelated.exact_mean / pairs);
    return PSK_OK;
}

/* --------------------------------------------------------------------------------------------------------- attention
 */

static const psk_local locals[] = {PSK_LOCAL_NONE, PSK_LOCAL_BLOCK, PSK_LOCAL_WINDOW};

/* The three kinds of queries are three heads that share keys and values. */
static psk_status attend(psk_device *device, const psk_attention_config *config, const rows *in, const sketches *s,
                         float *out) {
    const int64_t N = in->N, r = psk_attention_uses_ab(config) ? config->sketch_size : 0;
    const psk_attention_shape shape = {.B = 1, .H = QUERIES, .Hkv = 1, .Nq = N, .Nk = N, .h = HEAD, .d = HEAD, .r = r};
    psk_attention *attention;
    PSK_TRY(psk_attention_create(device, config, &shape, &attention));
    const psk_status status = psk_attention_forward(
        attention,
        &(psk_attention_tensors){
            .q = in->q, .k = in->k, .v = in->v, .a = s->a, .b = s->b, .out = out, .normaliser = s->normaliser});
    psk_attention_free(attention);
    return status;
}

/* rms(x - y) / rms(y) */
static double relative_error(const float *x, const float *y, int64_t n) {
    double error = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        size += (double)y[i] * (double)y[i];
    }
    return sqrt(error / size);
}

static psk_status measure_attention(psk_device *device, const rows *in, sketches *s, float far_scale,
                                    samples measures[][COUNT(locals)]) {
    const int64_t n = in->N * HEAD;
    for (size_t local = 0; local < COUNT(locals); local++) {
        psk_attention_config config = s->config;
        config.local = locals[local];
        config.far_scale = far_scale;
        PSK_TRY(attend(device, &config, in, s, s->out));
        for (int kind = 0; kind < QUERIES; kind++)
            add(&measures[kind][local], relative_error(s->out + kind * n, s->exact_out + kind * n, n));
    }
    return PSK_OK;
}

/* ----------------------------------------------------------------------------------------- the first and second table
 */

typedef struct sketch_figures {
    samples weights[MEASURES];
    samples attention[QUERIES][COUNT(locals)];
} sketch_figures;

static sketch_figures figures[COUNT(forms)][COUNT(degrees)][COUNT(sketch_sizes)];
static samples local_alone[COUNT(degrees)][QUERIES][COUNT(locals)]; /* sketched weights are 0 */

static psk_status measure_degree(const settings *set, uint64_t seed, size_t degree, const rows *in, sketches *s) {
    psk_attention_config exact = sketch_config(forms[0], degrees[degree], 1);
    exact.mechanism = PSK_POLYNOMIAL;
    PSK_TRY(attend(set->device, &exact, in, s, s->exact_out));
    for (size_t form = 0; form < COUNT(forms); form++)
        for (size_t size = 0; size < COUNT(sketch_sizes); size++) {
            sketch_figures *f = &figures[form][degree][size];
            s->config = sketch_config(forms[form], degrees[degree], sketch_sizes[size]);
            PSK_TRY(sketch_rows(set->device, in, seed, s));
            PSK_TRY(measure_weights(set->device, in, s, f->weights));
            PSK_TRY(measure_attention(set->device, in, s, 1.0f, f->attention));
        }
    return measure_attention(set->device, in, s, 0.0f, local_alone[degree]);
}

static psk_status measure_seed(const settings *set, uint64_t seed, rows *in, sketches *s) {
    draw_rows(in, seed);
    PSK_TRY(inner_products(set->device, in->N, HEAD, in->q, in->k, s->exact));
    for (size_t degree = 0; degree < COUNT(degrees); degree++)
        PSK_TRY(measure_degree(set, seed, degree, in, s));
    return PSK_OK;
}

static psk_status measure_sketches(const settings *set) {
    psk_status status;
    rows in = {0};
    sketches s = {0};
    PSK_TRY_GOTO(status, allocate_rows(set->tokens, &in), done);
    PSK_TRY_GOTO(status, allocate_sketches(set->tokens, &s), done);
    for (int64_t seed = 1; seed <= set->seeds; seed++)
        PSK_TRY_GOTO(status, measure_seed(set, (uint64_t)seed, &in, &s), done);
done:
    release_rows(&in);
    release_sketches(&s);
    return status;
}

/* Slope of log(measure) over log(r) by least squares: -1/2 where an error falls like 1 / sqrt(r). */
static double rate(const sketch_figures *of_sizes, weight_measure measure) {
    double x = 0.0, y = 0.0, xx = 0.0, xy = 0.0;
    const double n = (double)COUNT(sketch_sizes);
    for (size_t i = 0; i < COUNT(sketch_sizes); i++) {
        const double log_r = log((double)sketch_sizes[i]), value = log(mean(&of_sizes[i].weights[measure]));
        x += log_r / n;
        y += value / n;
        xx += log_r * log_r / n;
        xy += log_r * value / n;
    }
    return (xy - x * y) / (xx - x * x);
}

static void print_rates(size_t form, size_t degree) {
    printf("| %s | %d | slope |", psk_sketch_name(forms[form]), (int)degrees[degree]);
    for (int m = 0; m < MEASURES; m++) {
        const double slope = rate(figures[form][degree], (weight_measure)m);
        if (m == unrelated_exact || isnan(slope))
            printf(" |");
        else
            printf(" %.2f |", slope);
    }
    printf("\n");
}

static void print_weights(void) {
#define HEADING(name, heading) " " heading " |"
#define RULE(name, heading)    "---|"
    printf("\n| sketch | p | r |" WEIGHT_MEASURES(HEADING) "\n|---|---|---|" WEIGHT_MEASURES(RULE) "\n");
#undef HEADING
#undef RULE
    for (size_t form = 0; form < COUNT(forms); form++)
        for (size_t degree = 0; degree < COUNT(degrees); degree++) {
            for (size_t size = 0; size < COUNT(sketch_sizes); size++) {
                printf("| %s | %d | %d |", psk_sketch_name(forms[form]), (int)degrees[degree], (int)sketch_sizes[size]);
                for (int m = 0; m < MEASURES; m++)
                    printf(" %.2g |", mean(&figures[form][degree][size].weights[m]));
                printf("\n");
            }
            print_rates(form, degree);
        }
}

static void print_errors(const char *sketch, int64_t degree, const char *size, samples errors[][COUNT(locals)]) {
    printf("| %s | %d | %s |", sketch, (int)degree, size);
    for (int kind = 0; kind < QUERIES; kind++)
        for (size_t local = 0; local < COUNT(locals); local++)
            printf(" %.2f |", mean(&errors[kind][local]));
    printf("\n");
}

static void print_attention(void) {
    printf("\n| sketch | p | r |");
    for (int kind = 0; kind < QUERIES; kind++)
        for (size_t local = 0; local < COUNT(locals); local++)
            printf(" %s, %s |", query_names[kind], psk_local_name(locals[local]));
    printf("\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t degree = 0; degree < COUNT(degrees); degree++) {
        for (size_t form = 0; form < COUNT(forms); form++)
            for (size_t size = 0; size < COUNT(sketch_sizes); size++) {
                char number[16];
                snprintf(number, sizeof number, "%d", (int)sketch_sizes[size]);
                print_errors(psk_sketch_name(forms[form]), degrees[degree], number,
                             figures[form][degree][size].attention);
            }
        print_errors("weights 0", degrees[degree], "", local_alone[degree]);
    }
}

/* The members that both kinds of line begin with. */
static void write_degree(FILE *out, const settings *set, const char *kind, int64_t degree) {
    fprintf(out,
            "{\"figures\": \"%s\", \"degree\": %d, \"head_size\": %d, \"tokens\": %lld, \"seeds\": %lld, "
            "\"block_size\": %d",
            kind, (int)degree, HEAD, (long long)set->tokens, (long long)set->seeds, LOCAL_BLOCK);
}

static void write_errors(FILE *out, samples errors[][COUNT(locals)]) {
    for (int kind = 0; kind < QUERIES; kind++)
        for (size_t local = 0; local < COUNT(locals); local++) {
            char name[64];
            snprintf(name, sizeof name, "attention_%s_%s", query_names[kind], psk_local_name(locals[local]));
            write_samples(out, name, &errors[kind][local]);
        }
    fprintf(out, "}\n");
}

static void write_sketches(FILE *out, const settings *set) {
    for (size_t degree = 0; degree < COUNT(degrees); degree++) {
        for (size_t form = 0; form < COUNT(forms); form++)
            for (size_t size = 0; size < COUNT(sketch_sizes); size++) {
                sketch_figures *f = &figures[form][degree][size];
                write_degree(out, set, "sketch", degrees[degree]);
                fprintf(out, ", \"sketch\": \"%s\", \"sketch_size\": %d", psk_sketch_name(forms[form]),
                        (int)sketch_sizes[size]);
                for (int m = 0; m < MEASURES; m++)
                    write_samples(out, measure_names[m], &f->weights[m]);
                write_errors(out, f->attention);
            }
        write_degree(out, set, "local part alone", degrees[degree]);
        write_errors(out, local_alone[degree]);
    }
}

/* --------------------------------------------------------------------------------------------------- the third table
 */

/* The block algorithm without a local part is the running sum over tokens (b = 1) in another order: by size of block,
 * time and difference to b = 1. */
enum { BLOCK_SKETCH = 32, SAMPLES = 15 };
static const int64_t block_sizes[] = {1, 16, 32, 64, 128, 256, 512};

typedef struct block_run {
    psk_attention_tensors tensors;
    float *first_out, *first_state; /* of b = 1 */
    int64_t N, state_floats;
} block_run;

/* Of this thread, the only one of the device: what else the machine does disturbs it little. */
static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds of the fastest call. */
static psk_status time_block(psk_device *device, int64_t b, const block_run *run, double *best) {
    psk_status status = PSK_OK;
    psk_attention_config config = sketch_config(PSK_SKETCH_RANDOM, 4, BLOCK_SKETCH);
    const psk_attention_shape shape = {
        .B = 1, .H = 1, .Hkv = 1, .Nq = run->N, .Nk = run->N, .h = HEAD, .d = HEAD, .r = BLOCK_SKETCH};
    psk_attention *attention;
    config.local = PSK_LOCAL_NONE;
    config.block_size = b;
    PSK_TRY(psk_attention_create(device, &config, &shape, &attention));
    *best = INFINITY;
    for (int i = 0; i < SAMPLES && status == PSK_OK; i++) {
        const double start = processor_seconds();
        status = psk_attention_forward(attention, &run->tensors);
        *best = fmin(*best, processor_seconds() - start);
    }
    psk_attention_free(attention);
    return status;
}

/* max |x - y| / max |y| */
static double largest_difference(const float *x, const float *y, int64_t n) {
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)x[i] - (double)y[i]);
        difference = !(d <= difference) ? d : difference; /* NaN stays */
        size = fmax(size, fabs((double)y[i]));
    }
    return difference / size;
}

static psk_status measure_blocks(const settings *set, const block_run *run) {
    double first = 0.0;
    printf("\n| b | us a token | times b = 1's speed | outputs, max difference | rms | state, max difference |\n"
           "|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < COUNT(block_sizes); i++) {
        double seconds;
        PSK_TRY(time_block(set->device, block_sizes[i], run, &seconds));
        if (i == 0) {
            first = seconds;
            memcpy(run->first_out, run->tensors.out, (size_t)(run->N * HEAD) * sizeof(float));
            memcpy(run->first_state, run->tensors.state1, (size_t)run->state_floats * sizeof(float));
        }
        const double largest = largest_difference(run->tensors.out, run->first_out, run->N * HEAD);
        const double rms = relative_error(run->tensors.out, run->first_out, run->N * HEAD);
        const double state = largest_difference(run->tensors.state1, run->first_state, run->state_floats);
        const double token = seconds / (double)run->N;
        printf("| %d | %.2f | %.1f | %.1e | %.1e | %.1e |\n", (int)block_sizes[i], 1e6 * token, first / seconds,
               largest, rms, state);
        if (set->out != NULL)
            fprintf(
                set->out,
                "{\"figures\": \"blocks\", \"block_size\": %d, \"sketch_size\": %d, \"head_size\": %d, "
                "\"tokens\": %lld, \"seconds_per_token\": %.4g, \"max_difference\": %.3g, \"rms_difference\": %.3g, "
                "\"state_max_difference\": %.3g}\n",
                (int)block_sizes[i], BLOCK_SKETCH, HEAD, (long long)run->N, token, largest, rms, state);
    }
    return PSK_OK;
}

/* With the state as a result, so that no call may do without one. */
static psk_status compare_blocks(const settings *set) {
    psk_status status;
    rows in = {0};
    sketches s = {.config = sketch_config(PSK_SKETCH_RANDOM, 4, BLOCK_SKETCH)};
    block_run run = {.N = set->length, .state_floats = psk_attention_state_rows(&s.config) * (HEAD + 1)};
    PSK_TRY_GOTO(status, allocate_rows(set->length, &in), done);
    PSK_TRY_GOTO(status, allocate(QUERIES * run.N * BLOCK_SKETCH, &s.a), done);
    PSK_TRY_GOTO(status, allocate(run.N * BLOCK_SKETCH, &s.b), done);
    PSK_TRY_GOTO(status, allocate(psk_sketch_matrix_count(&s.config) * LARGEST_SKETCH * LARGEST_SKETCH, &s.matrices),
                 done);
    PSK_TRY_GOTO(status, allocate(psk_sketch_workspace(&s.config, HEAD), &s.scratch), done);
    PSK_TRY_GOTO(status, allocate(run.N * HEAD, &s.out), done);
    PSK_TRY_GOTO(status, allocate(run.N * HEAD, &s.exact_out), done);
    PSK_TRY_GOTO(status, allocate(run.N, &s.normaliser), done);
    PSK_TRY_GOTO(status, allocate(2 * run.state_floats, &s.state1), done);
    draw_rows(&in, 1);
    PSK_TRY_GOTO(status, sketch_rows(set->device, &in, 1, &s), done);
    run.tensors = (psk_attention_tensors){
        .v = in.v, .a = s.a, .b = s.b, .out = s.out, .normaliser = s.normaliser, .state1 = s.state1};
    run.first_out = s.exact_out;
    run.first_state = s.state1 + run.state_floats;
    status = measure_blocks(set, &run);
done:
    release_rows(&in);
    release_sketches(&s);
    return status;
}

/* -------------------------------------------------------------------------------------------------------------- main
 */

static bool read_number(const char *text, int64_t low, int64_t *value) {
    char *end;
    const long long number = strtoll(text, &end, 10);
    *value = number;
    return end != text && *end == '\0' && number >= low && number <= 1000000;
}

static bool read_settings(int argc, char **argv, settings *set) {
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--json") == 0 && *value != '\0')
            set->json = value;
        else if (!(strcmp(argv[i], "--seeds") == 0 && read_number(value, 1, &set->seeds)) &&
                 !(strcmp(argv[i], "--tokens") == 0 && read_number(value, 1, &set->tokens)) &&
                 !(strcmp(argv[i], "--length") == 0 && read_number(value, 1, &set->length)))
            return false;
    }
    return true;
}

static psk_status run(settings *set) {
    PSK_TRY(psk_device_create("cpu", 1, &set->device));
    printf("%s, %lld seeds, %lld tokens\n", psk_device_description(set->device), (long long)set->seeds,
           (long long)set->tokens);
    if (set->out != NULL)
        fprintf(set->out, "{\"figures\": \"run\", \"version\": \"%s\", \"device\": \"%s\"}\n", psk_version(),
                psk_device_description(set->device));
    PSK_TRY(measure_sketches(set));
    print_weights();
    print_attention();
    if (set->out != NULL)
        write_sketches(set->out, set);
    return compare_blocks(set);
}

int main(int argc, char **argv) {
    settings set = {.seeds = 20, .tokens = 1024, .length = 8192};
    if (!read_settings(argc, argv, &set)) {
        fprintf(stderr, "usage: sketch_error [--json FILE] [--seeds S] [--tokens N] [--length N]\n");
        return 2;
    }
    if (set.json != NULL && (set.out = fopen(set.json, "a")) == NULL) {
        perror(set.json);
        return 1;
    }
    const psk_status status = run(&set);
    if (status != PSK_OK)
        fprintf(stderr, "sketch_error: %s\n", psk_error_message());
    psk_device_free(set.device);
    bool written = set.out == NULL || !ferror(set.out);
    if (set.out != NULL && fclose(set.out) != 0)
        written = false;
    if (!written)
        perror(set.json);
    return status == PSK_OK && written ? 0 : 1;
}
