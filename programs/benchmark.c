#include "benchmark.h"

#include "machine.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE_SIZE                                                                                                      \
    1024 /* of the product that speaks for the machine: large enough for its peak, small enough to wait for */
#define SHORT_CALL                                                                                                     \
    5e-3 /* seconds; shorter calls are repeated inside a sample, for the clock and the scheduler are coarse */
#define SAMPLE_SPAN  20.0 /* seconds that all samples of one figure may take together */
#define SAMPLE_COUNT 10
#define SAMPLE_MOST  1000

bench_settings bench_settings_default(void) {
    return (bench_settings){.device = device_options_default(), .samples = SAMPLE_COUNT, .limit = 3};
}

option_group bench_option_group(bench_settings *settings, command_option table[BENCH_OPTION_COUNT]) {
    const command_option options[BENCH_OPTION_COUNT] = {
        {"samples", OPTION_COUNT, "N", "samples a figure; fewer where all would take over 20 s",
         .target = &settings->samples, .low = 1, .high = SAMPLE_MOST},
        {"limit", OPTION_REAL, "SECONDS", "what would take longer a call is left out", .target = &settings->limit,
         .low = 1e-3, .high = 1e5},
        {"json", OPTION_TEXT, "FILE", "append each figure there, one JSON object a line; -: to standard output, alone",
         .target = &settings->json},
    };
    memcpy(table, options, sizeof options);
    return (option_group){"Measuring", table, BENCH_OPTION_COUNT};
}

/* ----------------------------------------------------------------------------------------------------------- timing
 */

static int compare_doubles(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static psk_status time_calls(bench_call call, void *user, int calls, double *seconds) {
    const double start = seconds_now();
    for (int i = 0; i < calls; i++) {
        const psk_status status = call(user);
        if (status != PSK_OK)
            return status;
    }
    *seconds = (seconds_now() - start) / calls;
    return PSK_OK;
}

psk_status bench_measure(const bench_run *run, bench_call call, void *user, bench_timing *timing) {
    double samples[SAMPLE_MOST], first;
    psk_status status = time_calls(call, user, 1, &first); /* the first call allocates and compiles */
    if (status == PSK_OK && first > SAMPLE_SPAN) {         /* which in a call this long is nothing */
        *timing = (bench_timing){first, first, 1};
        return PSK_OK;
    }
    if (status == PSK_OK)
        status = time_calls(call, user, 1, &first);
    if (status != PSK_OK)
        return status;
    const int repeats = first < SHORT_CALL ? (int)ceil(SHORT_CALL / fmax(first, 1e-8)) : 1;
    int count = (int)run->settings->samples;
    if (first * repeats * count > SAMPLE_SPAN)
        count = (int)fmax(1, SAMPLE_SPAN / (first * repeats));
    for (int i = 0; i < count; i++) {
        status = time_calls(call, user, repeats, &samples[i]);
        if (status != PSK_OK)
            return status;
    }
    qsort(samples, (size_t)count, sizeof *samples, compare_doubles);
    timing->min = samples[0];
    timing->median = (samples[(count - 1) / 2] + samples[count / 2]) / 2;
    timing->samples = count;
    return PSK_OK;
}

typedef struct square_product {
    psk_device *device;
    float *a, *b, *c;
} square_product;

static psk_status call_product(void *user) {
    const square_product *const p = user;
    return psk_matmul(p->device, RATE_SIZE, RATE_SIZE, RATE_SIZE, p->a, p->b, p->c);
}

static exit_code measure_rate(bench_run *run) {
    const int64_t count = (int64_t)RATE_SIZE * RATE_SIZE;
    square_product p = {run->device, make_floats(run->command, count, 1), make_floats(run->command, count, 2),
                        make_floats(run->command, count, 0)};
    bench_timing timing = {.min = INFINITY};
    exit_code code = EXIT_FAILED;
    if (p.a && p.b && p.c)
        code = say_status(run->command, bench_measure(run, call_product, &p, &timing));
    run->matmul_rate = 2.0 * RATE_SIZE * RATE_SIZE * RATE_SIZE / timing.min;
    free(p.a);
    free(p.b);
    free(p.c);
    return code;
}

bool bench_begin(bench_run *run, const char *command, const bench_settings *settings, exit_code *code) {
    *run = (bench_run){.command = command, .settings = settings};
    *code = EXIT_FAILED;
    if (!record_begin(command, settings->json))
        return false;
    psk_status status = device_options_create(&settings->device, &run->device);
    if (status == PSK_OK)
        status = psk_device_create("reference", psk_device_threads(run->device), &run->reference);
    *code = status == PSK_OK ? measure_rate(run) : say_status(command, status);
    if (*code != EXIT_DONE)
        return false;
    const machine_facts facts = machine_read();
    printf("polysketch %s, %s, %s\nmatmul %d x %d x %d in %s: %.1f GFLOP/s\n\n", psk_version(), facts.cpu,
           psk_device_description(run->device), RATE_SIZE, RATE_SIZE, RATE_SIZE,
           psk_precision_name(psk_device_precision(run->device)), run->matmul_rate / 1e9);
    return true;
}

void bench_end(bench_run *run) {
    psk_device_free(run->device);
    psk_device_free(run->reference);
}

/* ---------------------------------------------------------------------------------------------------------- figures
 */

double figure_gflops(const bench_figure *figure) {
    return figure->useful_flops / figure->timing.min / 1e9;
}

double figure_share(const bench_run *run, const bench_figure *figure) {
    return figure_gflops(figure) * 1e9 / run->matmul_rate;
}

double figure_us_per_token(const bench_figure *figure) {
    return figure->timing.min * 1e6 / figure->tokens;
}

static json_t *text_or_null(const char *text) {
    return text ? json_string(text) : json_null();
}

static json_t *size_or_null(int64_t size) {
    return size ? json_integer(size) : json_null();
}

static void add_machine(const bench_run *run, json_t *record) {
    char text[640];
    const machine_facts facts = machine_read();
    snprintf(text, sizeof text, "%s, %lld CPUs, %s, %s", facts.cpu, (long long)facts.cpus, facts.system,
             psk_device_description(run->device));
    json_object_set_new(record, "machine", json_string(text));
    json_object_set_new(record, "version", json_string(psk_version()));
    json_object_set_new(record, "matmul_gflops", json_number(run->matmul_rate / 1e9));
}

bool bench_record(bench_run *run, const bench_figure *f) {
    if (!run->settings->json)
        return true;
    json_t *const record = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:s, s:o, s:o, s:i, s:o, s:o, s:o, s:o, "
        "s:I}",
        "bench", f->bench, "mechanism", text_or_null(f->mechanism), "sketch", text_or_null(f->sketch), "local",
        text_or_null(f->local), "pass", text_or_null(f->pass), "dtype",
        psk_precision_name(psk_device_precision(run->device)), "n", size_or_null(f->n), "batch", size_or_null(f->batch),
        "heads", size_or_null(f->heads), "head_size", size_or_null(f->head_size), "sketch_size",
        size_or_null(f->sketch_size), "block_size", size_or_null(f->block_size), "threads",
        psk_device_threads(run->device), "device", psk_device_name(run->device), "seconds_min",
        json_number(f->timing.min), "seconds_median", json_number(f->timing.median), "samples", f->timing.samples,
        "us_per_token", f->tokens > 0 ? json_number(figure_us_per_token(f)) : json_null(), "useful_gflops",
        f->useful_flops > 0 ? json_number(figure_gflops(f)) : json_null(), "share_of_matmul",
        f->useful_flops > 0 ? json_number(figure_share(run, f)) : json_null(), "share_of_bandwidth",
        f->bandwidth > 0 ? json_number(f->bandwidth) : json_null(), "peak_rss_bytes", (json_int_t)peak_memory());
    if (record && !run->described)
        add_machine(run, record);
    run->described = true;
    return record_append(run->command, run->settings->json, record);
}

/* ---------------------------------------------------------------------------------------------------------- tensors
 */

/* SplitMix64 (Steele, Lea, Flood 2014): 64 random bits from a counter. */
static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

void fill_random(float *x, int64_t n, uint64_t seed) {
    const double half_width = sqrt(3.0); /* uniform in [-sqrt(3), sqrt(3)): variance 1 */
    for (int64_t i = 0; i < n; i++) {
        const double u = (double)(mix(seed * UINT64_C(0x632BE59BD9B4E019) + (uint64_t)i) >> 11) * 0x1p-53;
        x[i] = (float)(half_width * (2 * u - 1));
    }
}

float *make_floats(const char *command, int64_t count, uint64_t seed) {
    float *const x = calloc((size_t)count, sizeof *x);
    if (!x)
        say_error(command, "out of memory for %lld numbers", (long long)count);
    else if (seed)
        fill_random(x, count, seed);
    return x;
}

double relative_error(const float *got, const float *want, int64_t n) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(want[i]))
            return INFINITY;
        const double off = (double)got[i] - (double)want[i];
        error += off * off;
        size += (double)want[i] * (double)want[i];
    }
    return size > 0 ? sqrt(error / size) : INFINITY; /* all zeros: nothing was computed */
}

float to_bfloat16(float x) {
    int exponent;
    const float mantissa = frexpf(x, &exponent);
    return ldexpf(rintf(ldexpf(mantissa, 8)), exponent - 8);
}

double bench_tolerance(const bench_run *run) {
    return psk_device_precision(run->device) == PSK_PRECISION_BF16 ? BENCH_BF16_TOLERANCE : BENCH_TOLERANCE;
}

bool bench_accept_within(const bench_run *run, double tolerance, const char *what, const char *tensor, double error) {
    if (isfinite(error) && error <= tolerance)
        return true;
    say_error(run->command,
              "%s: %s is %.2g away from the device \"reference\" (at most %.1g is accepted): not measured", what,
              tensor, error, tolerance);
    return false;
}

bool bench_accept(const bench_run *run, const char *what, const char *tensor, double error) {
    return bench_accept_within(run, bench_tolerance(run), what, tensor, error);
}
