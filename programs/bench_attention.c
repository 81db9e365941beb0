/* polysketch bench attention: what a token costs as the context grows. */
#include "benchmark.h"
#include "flops.h"
#include "forms.h"
#include "machine.h"
#include "plot.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASS_FORWARD, PASS_FORWARD_BACKWARD };
static const char *const passes[] = {[PASS_FORWARD] = "forward", [PASS_FORWARD_BACKWARD] = "forward_backward", NULL};
#define PASS_COUNT 2

typedef struct attention_settings {
    bench_settings bench;
    form_options forms;
    option_list lengths, passes;
    int64_t batch, heads, head_size, sketch_size, block_size, degree;
    const char *plot;
} attention_settings;

/* ----------------------------------------------------------------------------------------------------- one attention
 */

/* The tensors of an attention with its sketches, each B x H x N x width: name, width, seed (0: an output). */
#define TENSORS(TENSOR)                                                                                                \
    TENSOR(q, h, 1)                                                                                                    \
    TENSOR(k, h, 2)                                                                                                    \
    TENSOR(v, d, 3)                                                                                                    \
    TENSOR(dout, d, 4)                                                                                                 \
    TENSOR(a, r, 0)                                                                                                    \
    TENSOR(b, r, 0)                                                                                                    \
    TENSOR(out, d, 0)                                                                                                  \
    TENSOR(normaliser, 1, 0)                                                                                           \
    TENSOR(dq, h, 0)                                                                                                   \
    TENSOR(dk, h, 0)                                                                                                   \
    TENSOR(dv, d, 0)                                                                                                   \
    TENSOR(da, r, 0)                                                                                                   \
    TENSOR(db, r, 0)                                                                                                   \
    TENSOR(dq_sketch, h, 0)                                                                                            \
    TENSOR(dk_sketch, h, 0)

enum {
#define TENSOR(name, width, seed) TENSOR_##name,
    TENSORS(TENSOR)
#undef TENSOR
        TENSOR_COUNT
};

static const struct {
    const char *name;
    uint64_t seed;
} tensor_facts[TENSOR_COUNT] = {
#define TENSOR(name, width, seed) {#name, seed},
    TENSORS(TENSOR)
#undef TENSOR
};

typedef struct attention_call {
    psk_attention_shape shape;
    psk_attention *attention;
    psk_sketch_bench *sketches; /* of q, then of k; NULL: the mechanism has none */
    psk_attention_tensors tensors;
    float *data[TENSOR_COUNT];
    int64_t counts[TENSOR_COUNT]; /* 0: the mechanism has no such tensor */
    int pass;
    bool rounded; /* what attention reads has been rounded to bfloat16 */
} attention_call;

static bool has_sketches(const psk_attention_config *config) {
    return config->mechanism == PSK_POLYSKETCH || config->mechanism == PSK_PERFORMER;
}

/* Does attention itself read q and k? */
static bool reads_heads(const psk_attention_config *config) {
    return !has_sketches(config) || (config->mechanism == PSK_POLYSKETCH && config->local != PSK_LOCAL_NONE);
}

static void plan_tensors(attention_call *call, const psk_attention_config *config) {
    const psk_attention_shape *const s = &call->shape;
    const int64_t tokens = s->B * s->H * s->Nq, h = s->h, d = s->d, r = s->r;
#define TENSOR(name, width, seed) call->counts[TENSOR_##name] = tokens * (width);
    TENSORS(TENSOR)
#undef TENSOR
    if (!reads_heads(config))
        call->counts[TENSOR_dq] = call->counts[TENSOR_dk] = 0;
    if (!has_sketches(config))
        call->counts[TENSOR_dq_sketch] = call->counts[TENSOR_dk_sketch] = 0;
}

static void point_tensors(attention_call *call, const psk_attention_config *config) {
    float *const *const x = call->data;
    call->tensors = (psk_attention_tensors){
        .q = reads_heads(config) ? x[TENSOR_q] : NULL,
        .k = reads_heads(config) ? x[TENSOR_k] : NULL,
        .v = x[TENSOR_v],
        .a = x[TENSOR_a],
        .b = x[TENSOR_b],
        .out = x[TENSOR_out],
        .normaliser = x[TENSOR_normaliser],
        .dout = x[TENSOR_dout],
        .dq = x[TENSOR_dq],
        .dk = x[TENSOR_dk],
        .dv = x[TENSOR_dv],
        .da = x[TENSOR_da],
        .db = x[TENSOR_db],
    };
}

static void attention_close(attention_call *call) {
    psk_attention_free(call->attention);
    psk_sketch_bench_free(call->sketches);
    for (int i = 0; i < TENSOR_COUNT; i++)
        free(call->data[i]);
}

/* False with an error said; attention_close in either case. */
static bool attention_open(const bench_run *run, psk_device *device, const psk_attention_config *config,
                           const psk_attention_shape *shape, attention_call *call) {
    *call = (attention_call){.shape = *shape, .pass = PASS_FORWARD_BACKWARD};
    plan_tensors(call, config);
    for (int i = 0; i < TENSOR_COUNT; i++) {
        if (call->counts[i] == 0)
            continue;
        call->data[i] = make_floats(run->command, call->counts[i], tensor_facts[i].seed);
        if (!call->data[i])
            return false;
    }
    point_tensors(call, config);
    psk_status status = psk_attention_create(device, config, shape, &call->attention);
    if (status == PSK_OK && psk_attention_reads_ab(config, shape->Nk))
        status = psk_sketch_bench_create(device, config, shape->h, shape->B * shape->H * shape->Nq, &call->sketches);
    return say_status(run->command, status) == EXIT_DONE;
}

/* The sketches of q and k; with gradients also back from da and db. */
static psk_status call_sketches(const attention_call *call, bool backward) {
    float *const *const x = call->data;
    if (!call->sketches)
        return PSK_OK;
    const psk_status status = psk_sketch_bench_run(call->sketches, x[TENSOR_q], x[TENSOR_a], x[TENSOR_da],
                                                   backward ? x[TENSOR_dq_sketch] : NULL);
    if (status != PSK_OK)
        return status;
    return psk_sketch_bench_run(call->sketches, x[TENSOR_k], x[TENSOR_b], x[TENSOR_db],
                                backward ? x[TENSOR_dk_sketch] : NULL);
}

static void round_tensor(const attention_call *call, int tensor) {
    for (int64_t i = 0; i < call->counts[tensor]; i++)
        call->data[tensor][i] = to_bfloat16(call->data[tensor][i]);
}

static psk_status call_forward(void *user) {
    const attention_call *const call = user;
    const psk_status status = call_sketches(call, false);
    if (call->rounded) {
        round_tensor(call, TENSOR_a);
        round_tensor(call, TENSOR_b);
    }
    return status == PSK_OK ? psk_attention_forward(call->attention, &call->tensors) : status;
}

static psk_status call_forward_backward(void *user) {
    const attention_call *const call = user;
    psk_status status = call_forward(user);
    if (status == PSK_OK)
        status = psk_attention_backward(call->attention, &call->tensors);
    return status == PSK_OK ? call_sketches(call, true) : status;
}

/* ------------------------------------------------------------------------------------------------------------- gate
 */

static psk_attention_shape make_shape(const attention_settings *settings, const psk_attention_config *config, int64_t B,
                                      int64_t H, int64_t N) {
    return (psk_attention_shape){.B = B,
                                 .H = H,
                                 .Hkv = H,
                                 .Nq = N,
                                 .Nk = N,
                                 .h = settings->head_size,
                                 .d = settings->head_size,
                                 .r = has_sketches(config) ? config->sketch_size : 0};
}

/* One call forward and backward, its inputs rounded to bfloat16 or not. */
static bool call_once(const bench_run *run, psk_device *device, const psk_attention_config *config,
                      const psk_attention_shape *shape, bool rounded, attention_call *call) {
    if (!attention_open(run, device, config, shape, call))
        return false;
    call->rounded = rounded;
    for (int i = 0; i < TENSOR_COUNT && rounded; i++)
        if (tensor_facts[i].seed != 0)
            round_tensor(call, i);
    return say_status(run->command, call_forward_backward(call)) == EXIT_DONE;
}

/* Outputs and gradients against the reference, on a context that crosses two blocks and ends inside the third. In
 * bfloat16 twice the error of the reference on rounded inputs is accepted where it is more than the usual: gradients of
 * random sketches may nearly cancel, and be a tenth off then. */
static bool check_attention(const bench_run *run, const attention_settings *settings,
                            const psk_attention_config *config, const char *label) {
    attention_call got = {.attention = NULL}, want = got, rounded = got;
    int64_t N = 2 * config->block_size + 37;
    if (N > 549)
        N = 549; /* the reference is slow */
    const bool in_bf16 = psk_device_precision(run->device) == PSK_PRECISION_BF16;
    const psk_attention_shape shape = make_shape(settings, config, 1, settings->heads < 2 ? settings->heads : 2, N);
    bool good = call_once(run, run->device, config, &shape, false, &got) &&
                call_once(run, run->reference, config, &shape, false, &want) &&
                (!in_bf16 || call_once(run, run->reference, config, &shape, true, &rounded));
    for (int i = 0; i < TENSOR_COUNT && good; i++) { /* da and db are used up by the sketches' backward */
        if (got.counts[i] == 0 || tensor_facts[i].seed != 0 || i == TENSOR_da || i == TENSOR_db)
            continue;
        double tolerance = bench_tolerance(run);
        if (in_bf16)
            tolerance = fmax(tolerance, 2 * relative_error(rounded.data[i], want.data[i], got.counts[i]));
        good = bench_accept_within(run, tolerance, label, tensor_facts[i].name,
                                   relative_error(got.data[i], want.data[i], got.counts[i]));
    }
    attention_close(&got);
    attention_close(&want);
    attention_close(&rounded);
    return good;
}

/* -------------------------------------------------------------------------------------------------------- measuring
 */

typedef struct attention_variant {
    psk_attention_config config;
    char label[ATTENTION_LABEL_CAPACITY];
    plot_series series[PASS_COUNT]; /* us per token against N */
    double cut_after[PASS_COUNT];   /* seconds of the longest call so far */
    double cut_length[PASS_COUNT];  /* and its N; 0: none */
} attention_variant;

static bool is_quadratic(const psk_attention_config *config) {
    return sees_pairs(config) && !config->local_only;
}

/* Seconds that a call at N will take, from the last one measured; 0 if there was none. */
static double predict(const attention_variant *variant, int pass, double N) {
    if (variant->cut_length[pass] == 0)
        return 0;
    const double growth = N / variant->cut_length[pass];
    return variant->cut_after[pass] * growth * (is_quadratic(&variant->config) ? growth : 1);
}

static bool report(bench_run *run, attention_variant *variant, int pass, const attention_call *call,
                   const bench_timing *timing) {
    const psk_attention_config *const config = &variant->config;
    const psk_attention_shape *const shape = &call->shape;
    const attention_flops flops = flops_of_attention(config, shape);
    const bool sketched = config->mechanism == PSK_POLYSKETCH;
    const bench_figure figure = {
        .bench = "attention",
        .mechanism = psk_mechanism_name(config->mechanism),
        .sketch = sketched ? psk_sketch_name(config->sketch) : NULL,
        .local = attention_local(config),
        .pass = passes[pass],
        .n = shape->Nk,
        .batch = shape->B,
        .heads = shape->H,
        .head_size = shape->h,
        .sketch_size = shape->r,
        .block_size = is_quadratic(config) ? 0 : config->block_size,
        .tokens = (double)(shape->B * shape->Nq),
        .useful_flops = flops.forward + (pass == PASS_FORWARD ? 0 : flops.backward),
        .timing = *timing,
    };
    char length[FORMAT_CAPACITY], min[FORMAT_CAPACITY], median[FORMAT_CAPACITY];
    printf("%-42s %6s  %-16s %9s %9s %10.2f %9.1f %6.0f %% %7d\n", variant->label, format_length(length, shape->Nk),
           passes[pass], format_time_short(min, timing->min), format_time_short(median, timing->median),
           figure_us_per_token(&figure), figure_gflops(&figure), 100 * figure_share(run, &figure), timing->samples);
    fflush(stdout);
    variant->cut_length[pass] = (double)shape->Nk;
    variant->cut_after[pass] = timing->min;
    if (!plot_add(&variant->series[pass], (double)shape->Nk, figure_us_per_token(&figure))) {
        say_error(run->command, "out of memory");
        return false;
    }
    return bench_record(run, &figure);
}

/* All passes at one length. */
static bool measure_length(bench_run *run, const attention_settings *settings, attention_variant *variant, int64_t N) {
    const psk_attention_shape shape = make_shape(settings, &variant->config, settings->batch, settings->heads, N);
    attention_call call = {.attention = NULL};
    bool good = true, open = false;
    for (int i = 0; i < settings->passes.count && good; i++) {
        const int pass = (int)settings->passes.values[i];
        const double seconds = predict(variant, pass, (double)N);
        char length[FORMAT_CAPACITY];
        if (seconds > settings->bench.limit) {
            printf("%-42s %6s  %-16s left out: a call would take about %.0f s (--limit %g)\n", variant->label,
                   format_length(length, N), passes[pass], seconds, settings->bench.limit);
            continue;
        }
        bench_timing timing;
        peak_memory_reset();
        if (!open)
            good = open = attention_open(run, run->device, &variant->config, &shape, &call);
        good = good &&
               say_status(run->command, bench_measure(run, pass == PASS_FORWARD ? call_forward : call_forward_backward,
                                                      &call, &timing)) == EXIT_DONE;
        good = good && report(run, variant, pass, &call, &timing);
    }
    attention_close(&call);
    return good;
}

static bool measure_variant(bench_run *run, const attention_settings *settings, attention_variant *variant) {
    if (!check_attention(run, settings, &variant->config, variant->label))
        return false;
    for (int i = 0; i < settings->lengths.count; i++)
        if (!measure_length(run, settings, variant, settings->lengths.values[i]))
            return false;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ table
 */

static size_t list_variants(const attention_settings *settings, attention_variant variants[MOST_FORMS]) {
    psk_attention_config list[MOST_FORMS];
    psk_model_config usual = {.n_embd = settings->head_size,
                              .n_head = 1,
                              .n_positions = settings->lengths.values[0],
                              .attention = psk_attention_config_default()};
    usual.attention.degree = settings->degree;
    usual.attention.sketch_size = settings->sketch_size;
    usual.attention.block_size = settings->block_size;
    const size_t count = list_forms(&settings->forms, &usual, list);
    for (size_t i = 0; i < count; i++) {
        variants[i] = (attention_variant){.config = list[i]};
        attention_label(variants[i].label, &list[i]);
    }
    return count;
}

static bool draw(const bench_run *run, const attention_settings *settings, const attention_variant *variants,
                 size_t count) {
    plot_series series[MOST_FORMS];
    char title[256];
    /* the pass with most to it: training, where it was measured */
    const int64_t pass = settings->passes.values[settings->passes.count - 1];
    for (size_t i = 0; i < count; i++) {
        series[i] = variants[i].series[pass];
        memcpy(series[i].label, variants[i].label, sizeof variants[i].label);
        series[i].points = true;
        series[i].colour = (int)i;
    }
    snprintf(title, sizeof title, "Attention, %s: %lld heads of %lld, %d threads",
             pass == PASS_FORWARD ? "forward" : "forward and backward", (long long)settings->heads,
             (long long)settings->head_size, psk_device_threads(run->device));
    const plot_axes axes = {.title = title,
                            .x_label = "context length [tokens]",
                            .y_label = "time per token [microseconds]",
                            .log_lengths = true};
    if (!plot_draw(run->command, settings->plot, &axes, series, count))
        return false;
    printf("\nthe picture is %s\n", settings->plot);
    return true;
}

static exit_code run(const attention_settings *settings) {
    static attention_variant variants[MOST_FORMS];
    bench_run bench;
    exit_code code;
    const size_t count = list_variants(settings, variants);
    if (bench_begin(&bench, "bench attention", &settings->bench, &code)) {
        printf("%lld x %lld heads of %lld, blocks of %lld, sketches of %lld; sketching, where a key is sketched, is "
               "part of the time\n\n",
               (long long)settings->batch, (long long)settings->heads, (long long)settings->head_size,
               (long long)settings->block_size, (long long)settings->sketch_size);
        printf("%-42s %6s  %-16s %9s %9s %10s %9s %8s %7s\n", "mechanism", "N", "pass", "min", "median", "us/token",
               "GFLOP/s", "matmul", "samples");
        for (size_t i = 0; i < count && code == EXIT_DONE; i++)
            if (!measure_variant(&bench, settings, &variants[i]))
                code = EXIT_FAILED;
        if (code == EXIT_DONE && settings->plot && !draw(&bench, settings, variants, count))
            code = EXIT_FAILED;
    }
    for (size_t i = 0; i < count; i++)
        for (int pass = 0; pass < PASS_COUNT; pass++)
            plot_release(&variants[i].series[pass]);
    bench_end(&bench);
    return code;
}

exit_code bench_attention(int argc, char **argv) {
    const psk_attention_config usual = psk_attention_config_default();
    attention_settings settings = {
        .bench = bench_settings_default(),
        .forms = form_options_default(),
        .lengths = {.values = {512, 1024, 2048, 4096, 8192, 16384, 32768}, .count = 7},
        .passes = {.values = {PASS_FORWARD, PASS_FORWARD_BACKWARD}, .count = 2},
        .batch = 1,
        .heads = 4,
        .head_size = 64,
        .sketch_size = usual.sketch_size,
        .block_size = usual.block_size,
        .degree = usual.degree,
    };
    const command_option what[] = {
        {"lengths", OPTION_LENGTHS, NULL, "contexts", .target = &settings.lengths, .low = 1, .high = 1 << 30},
        {"passes", OPTION_CHOICES, NULL, "which ones", .target = &settings.passes, .names = passes},
        {"plot", OPTION_PICTURE, NULL, "draw time per token against context (needs gnuplot)", .target = &settings.plot},
    };
    const command_option sizes[] = {
        {"batch-size", OPTION_COUNT, "N", "sequences", .target = &settings.batch, .low = 1, .high = 1e6},
        {"heads", OPTION_COUNT, "N", "heads", .target = &settings.heads, .low = 1, .high = 4096},
        {"head-size", OPTION_COUNT, "N", "numbers in q, k and v", .target = &settings.head_size, .low = 3,
         .high = 4096},
        {"sketch-size", OPTION_COUNT, "N", "numbers in a sketch; features of performer",
         .target = &settings.sketch_size, .low = 1, .high = 4096},
        {"block-size", OPTION_LENGTH, NULL, "tokens in a block of the local part", .target = &settings.block_size,
         .low = 1, .high = 1 << 24},
        {"degree", OPTION_COUNT, "N", "degree of the polynomial, even", .target = &settings.degree, .low = 2,
         .high = 64},
    };
    command_option forms[FORM_OPTION_COUNT], measuring[BENCH_OPTION_COUNT], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {form_option_group(&settings.forms, forms), OPTION_GROUP("What", what),
                                   OPTION_GROUP("Sizes", sizes), bench_option_group(&settings.bench, measuring),
                                   device_option_group(&settings.bench.device, device)};
    const command_usage usage = {
        .command = "bench attention",
        .synopsis = "[options]",
        .summary =
            "Time of causal attention against context length, sketches included, after outputs and gradients of\n"
            "the same configuration have been found equal to those of the device \"reference\".",
        .examples =
            "  polysketch bench attention --mechanisms softmax,polysketch --plot time-per-token.png\n"
            "  polysketch bench attention --mechanisms polysketch --sketches all --locals all --lengths 4k\n"
            "  polysketch bench attention --mechanisms softmax,polysketch --local-only none,window --lengths 4k,16k",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = run(&settings);
    options_free(&line);
    return code;
}
