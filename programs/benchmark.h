/* What the subjects of `bench` share: timing, the gate before it, records. */
#ifndef BENCHMARK_H
#define BENCHMARK_H

#include "model_options.h"
#include "records.h"

typedef struct bench_settings {
    device_options device;
    int64_t samples;
    double limit; /* seconds that one call may take */
    const char *json;
} bench_settings;

bench_settings bench_settings_default(void);
#define BENCH_OPTION_COUNT 3
option_group bench_option_group(bench_settings *settings, command_option table[BENCH_OPTION_COUNT]);

/* One run of `bench`: the device under test and the reference it is held against. */
typedef struct bench_run {
    const char *command; /* for messages */
    const bench_settings *settings;
    psk_device *device, *reference;
    double matmul_rate; /* flop/s of this run's 1024^3 product */
    bool described;     /* the machine is in a record */
} bench_run;

/* Creates the devices, measures matmul_rate and prints the first lines about both. False with an error said in *code;
 * bench_end in either case. */
bool bench_begin(bench_run *run, const char *command, const bench_settings *settings, exit_code *code);
void bench_end(bench_run *run);

typedef struct bench_timing {
    double min, median; /* seconds a call */
    int samples;
} bench_timing;

/* Warm-up, then settings->samples samples (fewer if they would take too long, the first call alone if that does); a
 * sample of a short call is the mean of several. */
typedef psk_status (*bench_call)(void *user);
psk_status bench_measure(const bench_run *run, bench_call call, void *user, bench_timing *timing);

/* What a line of the table and of the file says. Texts NULL and numbers 0: null in the file. */
typedef struct bench_figure {
    const char *bench, *mechanism, *sketch, *local, *pass;
    int64_t n, batch, heads, head_size, sketch_size, block_size;
    double tokens;       /* of one call; 0: the figure has no time a token */
    double useful_flops; /* of one call; 0: not counted */
    double bandwidth;    /* share of the rate at which the machine reads memory; 0: not counted */
    bench_timing timing;
} bench_figure;

/* Appends the figure to --json if there is one. The first carries machine and version. */
bool bench_record(bench_run *run, const bench_figure *figure);

/* "3.21 ms" and "45 %", or "" where the figure has no flops. */
double figure_gflops(const bench_figure *figure);
double figure_share(const bench_run *run, const bench_figure *figure);
double figure_us_per_token(const bench_figure *figure);

/* Numbers of mean 0 and variance 1, a pure function of seed and index. */
void fill_random(float *x, int64_t n, uint64_t seed);

/* malloc of count floats filled with such numbers (seed 0: zeros), NULL with an error said. */
float *make_floats(const char *command, int64_t count, uint64_t seed);

/* rms(got - want) / rms(want); infinity if anything is not finite, or all of `want` is 0. */
double relative_error(const float *got, const float *want, int64_t n);

/* To the 8 significant bits of bfloat16. */
float to_bfloat16(float x);

/* Nothing is timed that is further than this from the reference: float32; bfloat16, whose weights of degree p carry
 * p times the rounding of a product. Seen: 9e-3 at degree 4, 1.2e-2 in the gradient of a whole step, 2.7e-2 at degree
 * 16. */
#define BENCH_TOLERANCE      1e-5
#define BENCH_BF16_TOLERANCE 3e-2
double bench_tolerance(const bench_run *run);

/* False with an error said that names the tensor, unless the error is at most that, or at most `tolerance`. */
bool bench_accept(const bench_run *run, const char *what, const char *tensor, double error);
bool bench_accept_within(const bench_run *run, double tolerance, const char *what, const char *tensor, double error);

#endif
