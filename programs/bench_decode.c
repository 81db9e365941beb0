/* polysketch bench decode: time per token of generation against context. */
#include "benchmark.h"
#include "machine.h"
#include "plot.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GATE_TOKENS     67 /* for the reference computes in plain loops */
#define GATE_VOCABULARY 61
#define GATE_SESSIONS   3
#define MOST_BATCH      1024
#define MOST_VARIANTS   4
#define READ_FLOATS     (INT64_C(64) << 20) /* 256 MiB: no cache holds them */
#define READ_ROW        4096
#define PROMPT_TOKENS   1024

typedef struct decode_settings {
    bench_settings bench;
    model_options model;
    option_list mechanisms, contexts, batches;
    const char *plot;
} decode_settings;

/* ------------------------------------------------------------------------------------------------------- read rate
 */

typedef struct memory_read {
    psk_device *device;
    float *numbers, *sums;
} memory_read;

static psk_status call_read(void *user) {
    const memory_read *const r = user;
    return psk_row_dots(r->device, READ_FLOATS / 2 / READ_ROW, READ_ROW, r->numbers, r->numbers + READ_FLOATS / 2,
                        r->sums);
}

/* Bytes a second, by inner products over more memory than caches hold; 0 with an error said. */
static double measure_reading(const bench_run *run) {
    memory_read r = {run->device, make_floats(run->command, READ_FLOATS, 1),
                     make_floats(run->command, READ_FLOATS / READ_ROW, 0)};
    bench_timing timing = {.min = INFINITY};
    const bool good =
        r.numbers && r.sums && say_status(run->command, bench_measure(run, call_read, &r, &timing)) == EXIT_DONE;
    free(r.numbers);
    free(r.sums);
    return good ? (double)READ_FLOATS * (double)sizeof(float) / timing.min : 0;
}

/* ------------------------------------------------------------------------------------------------------------- gate
 */

/* Sessions that read a prompt together with others and then single tokens, against whole sequences. */
static psk_status step_through(psk_model *model, int64_t V, float *logits) {
    psk_session *sessions[GATE_SESSIONS] = {NULL};
    int32_t tokens[GATE_SESSIONS];
    psk_status status = PSK_OK;
    for (int i = 0; i < GATE_SESSIONS && status == PSK_OK; i++)
        status = psk_session_create(model, &sessions[i]);
    for (int t = 0; t < GATE_TOKENS && status == PSK_OK; t++) {
        for (int i = 0; i < GATE_SESSIONS; i++)
            tokens[i] = (int32_t)((t * t + i) % V);
        status = psk_session_step(sessions, GATE_SESSIONS, tokens, logits);
    }
    for (int i = 0; i < GATE_SESSIONS; i++)
        psk_session_free(sessions[i]);
    return status;
}

static psk_status whole_sequences(psk_model *model, int64_t V, float *last, float *logits) {
    int32_t tokens[GATE_TOKENS];
    psk_status status = PSK_OK;
    for (int i = 0; i < GATE_SESSIONS && status == PSK_OK; i++) {
        for (int t = 0; t < GATE_TOKENS; t++)
            tokens[t] = (int32_t)((t * t + i) % V);
        status = psk_model_logits(model, 1, GATE_TOKENS, tokens, logits);
        memcpy(last + i * V, logits + (GATE_TOKENS - 1) * V, (size_t)V * sizeof(float));
    }
    return status;
}

/* One layer, small vocabulary and blocks keep the reference quick; all else is the model's own. */
static bool check_decoding(const bench_run *run, const psk_model_config *config, const char *label) {
    static float got[GATE_SESSIONS * GATE_VOCABULARY], want[GATE_SESSIONS * GATE_VOCABULARY],
        all[GATE_TOKENS * GATE_VOCABULARY];
    psk_model_config small = *config;
    psk_model *tested = NULL, *reference = NULL;
    small.n_layer = 1;
    small.vocab_size = config->vocab_size < GATE_VOCABULARY ? config->vocab_size : GATE_VOCABULARY;
    if (small.attention.block_size > GATE_TOKENS / 4)
        small.attention.block_size = GATE_TOKENS / 4;
    psk_status status = psk_model_create(run->device, &small, 1, &tested);
    if (status == PSK_OK)
        status = psk_model_create(run->reference, &small, 1, &reference);
    if (status == PSK_OK)
        status = step_through(tested, small.vocab_size, got);
    if (status == PSK_OK)
        status = whole_sequences(reference, small.vocab_size, want, all);
    psk_model_free(tested);
    psk_model_free(reference);
    return say_status(run->command, status) == EXIT_DONE &&
           bench_accept(run, label, "the logits of a step",
                        relative_error(got, want, GATE_SESSIONS * small.vocab_size));
}

/* -------------------------------------------------------------------------------------------------------- measuring
 */

typedef struct decode_variant {
    psk_model_config config;
    char label[ATTENTION_LABEL_CAPACITY];
    plot_series series[OPTION_LIST_CAPACITY]; /* by batch: ms a token and sequence against context */
} decode_variant;

/* Sessions at work; all stand where the first one stands. */
typedef struct decode_call {
    psk_session *sessions[MOST_BATCH];
    int32_t tokens[MOST_BATCH];
    int64_t count, V, at;
    float *logits; /* count x V */
} decode_call;

static psk_status call_step(void *user) {
    decode_call *const call = user;
    for (int64_t i = 0; i < call->count; i++)
        call->tokens[i] = (int32_t)((call->at + 7919 * i) % call->V);
    call->at++;
    return psk_session_step(call->sessions, call->count, call->tokens, call->logits);
}

static void close_sessions(decode_call *call) {
    for (int64_t i = 0; i < call->count; i++)
        psk_session_free(call->sessions[i]);
    free(call->logits);
    *call = (decode_call){.count = 0};
}

static psk_status open_sessions(const psk_session *start, int64_t context, int64_t count, decode_call *call) {
    psk_status status = PSK_OK;
    call->count = 0;
    while (call->count < count && status == PSK_OK) {
        psk_session *session;
        status = psk_session_clone(start, &session);
        if (status != PSK_OK)
            break;
        call->sessions[call->count++] = session;
        if (context > psk_session_length(session))
            status = psk_session_skip(session, context - psk_session_length(session));
    }
    return status;
}

static bench_figure figure_of(const psk_model_config *config, const char *pass, int64_t n, int64_t batch) {
    const psk_attention_config *const attention = &config->attention;
    const bool sketched = attention->mechanism == PSK_POLYSKETCH;
    return (bench_figure){
        .bench = "decode",
        .mechanism = psk_mechanism_name(attention->mechanism),
        .sketch = sketched ? psk_sketch_name(attention->sketch) : NULL,
        .local = attention_local(attention),
        .pass = pass,
        .n = n,
        .batch = batch,
        .heads = config->n_head,
        .head_size = config->n_embd / config->n_head,
        .sketch_size = sketched || attention->mechanism == PSK_PERFORMER ? attention->sketch_size : 0,
        .block_size = attention_local(attention) ? attention->block_size : 0,
    };
}

static bool report(bench_run *run, decode_variant *variant, plot_series *series, const decode_call *call, double rate,
                   bench_figure *figure) {
    const psk_step_bytes bytes = psk_session_step_bytes(call->sessions[0]);
    const double batch = (double)call->count, bound = ((double)bytes.weights + batch * (double)bytes.state) / rate;
    char length[FORMAT_CAPACITY], min[FORMAT_CAPACITY], median[FORMAT_CAPACITY], state[FORMAT_CAPACITY],
        least[FORMAT_CAPACITY];
    figure->tokens = batch;
    figure->bandwidth = bound / figure->timing.min;
    printf("%-34s %6s %5lld %10s %10s %10.1f %10s %6.0f %% %10s\n", variant->label, format_length(length, figure->n),
           (long long)call->count, format_time_short(min, figure->timing.min),
           format_time_short(median, figure->timing.median), batch / figure->timing.min,
           format_time_short(least, bound), 100 * figure->bandwidth,
           format_bytes(state, psk_session_bytes(call->sessions[0])));
    fflush(stdout);
    if (!plot_add(series, (double)figure->n, figure->timing.median * 1e6 / batch)) {
        say_error(run->command, "out of memory");
        return false;
    }
    return bench_record(run, figure);
}

/* Half of the memory that is free may go to the states of one line of the table. */
static bool fits(const psk_model *model, const decode_variant *variant, int64_t context, int64_t batch) {
    const int64_t each = psk_session_bytes_at(model, context);
    const double needed = (double)each * (double)batch, most = (double)machine_read().memory_free / 2;
    char length[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY];
    if (each >= 0 && needed <= most)
        return true;
    printf("%-34s %6s %5lld left out: the cache would take %s, half of the free memory is less\n", variant->label,
           format_length(length, context), (long long)batch,
           each < 0 ? "more than memory can be" : format_bytes(bytes, each * batch));
    return false;
}

static bool measure_context(bench_run *run, decode_variant *variant, plot_series *series, psk_model *model,
                            const psk_session *start, double rate, int64_t context, int64_t batch) {
    decode_call call = {.V = variant->config.vocab_size, .at = context};
    bench_figure figure = figure_of(&variant->config, "token", context, batch);
    if (!fits(model, variant, context, batch))
        return true;
    peak_memory_reset();
    psk_status status = open_sessions(start, context, batch, &call);
    call.logits = make_floats(run->command, batch * call.V, 0);
    bool good = say_status(run->command, status) == EXIT_DONE && call.logits &&
                say_status(run->command, bench_measure(run, call_step, &call, &figure.timing)) == EXIT_DONE;
    good = good && report(run, variant, series, &call, rate, &figure);
    close_sessions(&call);
    return good;
}

/* A prompt that a session reads again and again. */
typedef struct prompt_call {
    psk_session *session;
    int32_t tokens[PROMPT_TOKENS];
    float *logits; /* V */
} prompt_call;

static psk_status call_prompt(void *user) {
    prompt_call *const call = user;
    psk_session_reset(call->session);
    return psk_session_append(call->session, call->tokens, PROMPT_TOKENS, call->logits);
}

static psk_status call_forward(void *user) {
    double loss;
    return psk_step_bench_forward(user, &loss);
}

/* Training's forward of as many tokens, which a prompt is held against. */
static bool measure_forward(bench_run *run, psk_model *model, bench_timing *timing) {
    psk_step_bench *step = NULL;
    psk_status status = psk_step_bench_create(model, 1, PROMPT_TOKENS, 0, &step);
    if (status == PSK_OK)
        status = bench_measure(run, call_forward, step, timing);
    psk_step_bench_free(step);
    return say_status(run->command, status) == EXIT_DONE;
}

static bool measure_prompt(bench_run *run, const decode_variant *variant, psk_model *model, psk_session *session) {
    static prompt_call call;
    bench_timing forward = {.min = INFINITY};
    bench_figure figure = figure_of(&variant->config, "forward", PROMPT_TOKENS, 1);
    call = (prompt_call){.session = session};
    for (int i = 0; i < PROMPT_TOKENS; i++)
        call.tokens[i] = (int32_t)((int64_t)i * 7919 % variant->config.vocab_size);
    call.logits = make_floats(run->command, variant->config.vocab_size, 0);
    const bool good = call.logits &&
                      say_status(run->command, bench_measure(run, call_prompt, &call, &figure.timing)) == EXIT_DONE &&
                      measure_forward(run, model, &forward);
    free(call.logits);
    figure.tokens = PROMPT_TOKENS;
    if (good)
        printf("%-34s prompt of %d tokens: %.0f tokens/s, training's forward %.0f\n", variant->label, PROMPT_TOKENS,
               PROMPT_TOKENS / figure.timing.min, PROMPT_TOKENS / forward.min);
    return good && bench_record(run, &figure);
}

/* Where every line of the table starts: in the middle of a block, two blocks behind it. */
static psk_status read_start(const psk_model_config *config, psk_session *session) {
    const int64_t b = config->attention.block_size, count = 2 * b + b / 2 + 1;
    psk_session_reset(session);
    for (int64_t t = 0; t < count; t++) {
        const int32_t token = (int32_t)(t * 31 % config->vocab_size);
        const psk_status status = psk_session_append(session, &token, 1, NULL);
        if (status != PSK_OK)
            return status;
    }
    return PSK_OK;
}

static bool measure_model(bench_run *run, const decode_settings *settings, decode_variant *variant, double rate,
                          psk_model *model, psk_session *session) {
    if (!measure_prompt(run, variant, model, session) ||
        say_status(run->command, read_start(&variant->config, session)) != EXIT_DONE)
        return false;
    for (int b = 0; b < settings->batches.count; b++)
        for (int i = 0; i < settings->contexts.count; i++)
            if (!measure_context(run, variant, &variant->series[b], model, session, rate, settings->contexts.values[i],
                                 settings->batches.values[b]))
                return false;
    return true;
}

static bool measure_variant(bench_run *run, const decode_settings *settings, decode_variant *variant, double rate) {
    psk_model *model = NULL;
    psk_session *session = NULL;
    if (!check_decoding(run, &variant->config, variant->label))
        return false;
    psk_status status = psk_model_create(run->device, &variant->config, 1, &model);
    if (status == PSK_OK)
        status = psk_session_create(model, &session);
    const bool good =
        say_status(run->command, status) == EXIT_DONE && measure_model(run, settings, variant, rate, model, session);
    psk_session_free(session);
    psk_model_free(model);
    return good;
}

/* ------------------------------------------------------------------------------------------------------------ table
 */

static bool draw(const bench_run *run, const decode_settings *settings, const decode_variant *variants, size_t count) {
    plot_series series[MOST_VARIANTS * OPTION_LIST_CAPACITY];
    char title[256];
    size_t drawn = 0;
    for (size_t i = 0; i < count; i++)
        for (int b = 0; b < settings->batches.count; b++) {
            plot_series *const line = &series[drawn++];
            *line = variants[i].series[b];
            snprintf(line->label, sizeof line->label, "%s, batch %lld", variants[i].label,
                     (long long)settings->batches.values[b]);
            line->points = true;
            line->colour = (int)(drawn - 1);
            line->dashed = i % 2 == 0 && count > 1;
        }
    snprintf(title, sizeof title, "Generation: %s, %d threads", settings->model.preset,
             psk_device_threads(run->device));
    const plot_axes axes = {.title = title,
                            .x_label = "context length [tokens]",
                            .y_label = "time per token and sequence [microseconds]",
                            .log_lengths = true};
    if (!plot_draw(run->command, settings->plot, &axes, series, drawn))
        return false;
    printf("\nthe picture is %s\n", settings->plot);
    return true;
}

static psk_status list_variants(const decode_settings *settings, decode_variant *variants, size_t *count) {
    for (*count = 0; *count < (size_t)settings->mechanisms.count; ++*count) {
        decode_variant *const variant = &variants[*count];
        model_options model = settings->model;
        *variant = (decode_variant){.label = ""};
        model.attention = (int)settings->mechanisms.values[*count];
        const psk_status status = model_options_config(&model, &variant->config);
        if (status != PSK_OK)
            return status;
        attention_label(variant->label, &variant->config.attention);
    }
    return PSK_OK;
}

static bool measure_all(bench_run *run, const decode_settings *settings, decode_variant *variants, size_t count) {
    const double rate = measure_reading(run);
    if (rate == 0)
        return false;
    printf("memory is read at %.1f GB/s; bound: the time to read weights and states once at that rate\n"
           "every line starts in the middle of a block; one token in %lld also folds a block into the state\n\n"
           "%-34s %6s %5s %10s %10s %10s %10s %8s %10s\n",
           rate / 1e9, (long long)variants[0].config.attention.block_size, "mechanism", "N", "batch", "min", "median",
           "tokens/s", "bound", "of it", "session");
    for (size_t i = 0; i < count; i++)
        if (!measure_variant(run, settings, &variants[i], rate))
            return false;
    return !settings->plot || draw(run, settings, variants, count);
}

static exit_code run(const decode_settings *settings) {
    static decode_variant variants[MOST_VARIANTS];
    bench_run bench;
    size_t count;
    exit_code code = say_status("bench decode", list_variants(settings, variants, &count));
    if (code != EXIT_DONE)
        return code;
    if (bench_begin(&bench, "bench decode", &settings->bench, &code) && !measure_all(&bench, settings, variants, count))
        code = EXIT_FAILED;
    for (size_t i = 0; i < count; i++)
        for (int b = 0; b < settings->batches.count; b++)
            plot_release(&variants[i].series[b]);
    bench_end(&bench);
    return code;
}

exit_code bench_decode(int argc, char **argv) {
    decode_settings settings = {
        .bench = bench_settings_default(),
        .model = model_options_none(),
        .mechanisms = {.values = {PSK_SOFTMAX, PSK_POLYSKETCH}, .count = 2},
        .contexts = {.values = {1 << 10, 1 << 13, 1 << 16, 1 << 20}, .count = 4},
        .batches = {.values = {1, 8, 32}, .count = 3},
    };
    settings.model.preset = DEFAULT_PRESET;
    const command_option what[] = {
        {"mechanisms", OPTION_CHOICES, NULL, "which ones", .target = &settings.mechanisms,
         .names = mechanism_names()->names},
        {"contexts", OPTION_LENGTHS, NULL, "tokens before the one that is timed", .target = &settings.contexts,
         .low = 1, .high = 1 << 30},
        {"batches", OPTION_LENGTHS, NULL, "sequences that take a step together", .target = &settings.batches, .low = 1,
         .high = MOST_BATCH},
        {"plot", OPTION_PICTURE, NULL, "draw time per token against context (needs gnuplot)", .target = &settings.plot},
    };
    command_option model[MODEL_OPTION_CAPACITY], measuring[BENCH_OPTION_COUNT], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("What", what), model_option_group(&settings.model, model),
                                   bench_option_group(&settings.bench, measuring),
                                   device_option_group(&settings.bench.device, device)};
    const command_usage usage = {
        .command = "bench decode",
        .synopsis = "[options]",
        .summary =
            "Time of one token of generation against context and batch, for a model of random weights, after the\n"
            "logits of steps have been found equal to those of whole sequences on the device \"reference\".\n"
            "Contexts are set, not read: what a token costs does not depend on what the numbers are.",
        .examples = "  polysketch bench decode --preset gpt2-small --precision bfloat16 --threads 2\n"
                    "  polysketch bench decode --mechanisms softmax,polysketch --contexts 1k,64k,1M --plot decode.png",
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
