/* polysketch bench matmul: the rate that everything else is held against. */
#include "benchmark.h"
#include "terminal.h"

#include <stdio.h>
#include <stdlib.h>

#define GATE_MOST 130 /* the reference multiplies in plain loops */

typedef struct product {
    psk_device *device;
    int64_t n;
    float *a, *b, *c;
} product;

static psk_status call_product(void *user) {
    const product *const p = user;
    return psk_matmul(p->device, p->n, p->n, p->n, p->a, p->b, p->c);
}

/* The first rows of c against the reference: n numbers from 2 n^2 operations each, so every column is looked at. */
static bool check_product(const bench_run *run, product *p) {
    const int64_t rows = p->n < GATE_MOST ? p->n : 1 + GATE_MOST * GATE_MOST * GATE_MOST / (p->n * p->n);
    float *const want = make_floats(run->command, rows * p->n, 0);
    psk_status status = call_product(p);
    if (status == PSK_OK && want)
        status = psk_matmul(run->reference, rows, p->n, p->n, p->a, p->b, want);
    const bool good = want && say_status(run->command, status) == EXIT_DONE &&
                      bench_accept(run, "matmul", "the product", relative_error(p->c, want, rows * p->n));
    free(want);
    return good;
}

static bool measure_size(bench_run *run, int64_t n) {
    product p = {run->device, n, make_floats(run->command, n * n, 1), make_floats(run->command, n * n, 2),
                 make_floats(run->command, n * n, 0)};
    bench_figure figure = {
        .bench = "matmul", .pass = "forward", .n = n, .useful_flops = 2.0 * (double)n * (double)n * (double)n};
    char min[FORMAT_CAPACITY], median[FORMAT_CAPACITY];
    bool good = p.a && p.b && p.c && check_product(run, &p) &&
                say_status(run->command, bench_measure(run, call_product, &p, &figure.timing)) == EXIT_DONE;
    if (good) {
        printf("%8lld  %10s  %10s  %10.1f  %7d\n", (long long)n, format_time_short(min, figure.timing.min),
               format_time_short(median, figure.timing.median), figure_gflops(&figure), figure.timing.samples);
        fflush(stdout);
        good = bench_record(run, &figure);
    }
    free(p.a);
    free(p.b);
    free(p.c);
    return good;
}

static exit_code run(const bench_settings *settings, const option_list *sizes) {
    bench_run bench;
    exit_code code;
    if (bench_begin(&bench, "bench matmul", settings, &code)) {
        printf("%8s  %10s  %10s  %10s  %7s\n", "size", "min", "median", "GFLOP/s", "samples");
        for (int i = 0; i < sizes->count && code == EXIT_DONE; i++) {
            const double n = (double)sizes->values[i], seconds = 2 * n * n * n / bench.matmul_rate;
            if (seconds > settings->limit)
                printf("%8.0f  left out: a call would take about %.0f s (--limit %g)\n", n, seconds, settings->limit);
            else if (!measure_size(&bench, sizes->values[i]))
                code = EXIT_FAILED;
        }
    }
    bench_end(&bench);
    return code;
}

exit_code bench_matmul(int argc, char **argv) {
    bench_settings settings = bench_settings_default();
    option_list sizes = {.values = {256, 512, 1024, 2048}, .count = 4};
    const command_option table[] = {
        {"sizes", OPTION_LENGTHS, NULL, "of square products", .target = &sizes, .low = 1, .high = 32768}};
    command_option measuring[BENCH_OPTION_COUNT], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Sizes", table), bench_option_group(&settings, measuring),
                                   device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "bench matmul",
        .synopsis = "[options]",
        .summary = "The rate of square matrix products, checked against plain loops first.",
        .examples = "  polysketch bench matmul --sizes 512,1k,2k --threads 1",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = run(&settings, &sizes);
    options_free(&line);
    return code;
}
