/* polysketch bench step: a whole training step. */
#include "benchmark.h"
#include "flops.h"
#include "machine.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>

#define GATE_TOKENS 67 /* for the reference computes in plain loops */

typedef struct step_settings {
    bench_settings bench;
    model_options model;
    int64_t batch, context;
    int recompute;
} step_settings;

typedef struct step_run {
    psk_model *model;
    psk_step_bench *bench;
    double loss;
} step_run;

static psk_status call_step(void *user) {
    step_run *const step = user;
    return psk_step_bench_run(step->bench, &step->loss);
}

static psk_status step_open(psk_device *device, const psk_model_config *config, int64_t B, int64_t N, int recompute,
                            step_run *step) {
    *step = (step_run){.loss = NAN};
    psk_status status = psk_model_create(device, config, 1, &step->model);
    if (status == PSK_OK)
        status = psk_step_bench_create(step->model, B, N, recompute, &step->bench);
    return status;
}

static void step_close(step_run *step) {
    psk_step_bench_free(step->bench);
    psk_model_free(step->model);
}

/* What a device computes for the gate: logits of a sequence, then loss and gradient norm of a step. */
#define GATE_VOCABULARY 61
typedef struct gate_results {
    float logits[GATE_TOKENS * GATE_VOCABULARY], loss, grad_norm;
} gate_results;

static psk_status compute_gate(psk_device *device, const psk_model_config *config, int recompute,
                               gate_results *results) {
    step_run step;
    int32_t tokens[GATE_TOKENS];
    for (int i = 0; i < GATE_TOKENS; i++)
        tokens[i] = (int32_t)(i * i % config->vocab_size);
    psk_status status = step_open(device, config, 1, GATE_TOKENS, recompute, &step);
    if (status == PSK_OK)
        status = psk_model_logits(step.model, 1, GATE_TOKENS, tokens, results->logits);
    if (status == PSK_OK)
        status = call_step(&step);
    if (status == PSK_OK) {
        results->loss = (float)step.loss;
        results->grad_norm = (float)psk_step_bench_grad_norm(step.bench);
    }
    step_close(&step);
    return status;
}

/* One layer, small vocabulary and blocks keep the reference quick; all else is the model's own. */
static bool check_step(const bench_run *run, const step_settings *settings, const psk_model_config *config) {
    static gate_results got, want;
    psk_model_config small = *config;
    small.n_layer = 1;
    if (small.vocab_size > GATE_VOCABULARY)
        small.vocab_size = GATE_VOCABULARY;
    if (small.attention.block_size > GATE_TOKENS / 4)
        small.attention.block_size = GATE_TOKENS / 4;
    if (say_status(run->command, compute_gate(run->device, &small, settings->recompute, &got)) != EXIT_DONE ||
        say_status(run->command, compute_gate(run->reference, &small, settings->recompute, &want)) != EXIT_DONE)
        return false;
    const char *const what = "training step";
    return bench_accept(run, what, "the logits",
                        relative_error(got.logits, want.logits, GATE_TOKENS * small.vocab_size)) &&
           bench_accept(run, what, "the loss", relative_error(&got.loss, &want.loss, 1)) &&
           bench_accept(run, what, "the gradient's norm", relative_error(&got.grad_norm, &want.grad_norm, 1));
}

static bool measure_step(bench_run *run, const step_settings *settings, const psk_model_config *config) {
    step_run step;
    const psk_attention_config *const attention = &config->attention;
    const bool sketched = attention->mechanism == PSK_POLYSKETCH;
    bench_figure figure = {
        .bench = "step",
        .mechanism = psk_mechanism_name(attention->mechanism),
        .sketch = sketched ? psk_sketch_name(attention->sketch) : NULL,
        .local = attention_local(attention),
        .pass = "step",
        .n = settings->context,
        .batch = settings->batch,
        .heads = config->n_head,
        .head_size = config->n_embd / config->n_head,
        .sketch_size = sketched || attention->mechanism == PSK_PERFORMER ? attention->sketch_size : 0,
        .block_size = attention_local(attention) ? attention->block_size : 0,
        .tokens = (double)(settings->batch * settings->context),
        .useful_flops = flops_of_step(config, settings->batch, settings->context),
    };
    peak_memory_reset();
    psk_status status = step_open(run->device, config, settings->batch, settings->context, settings->recompute, &step);
    if (status == PSK_OK)
        status = bench_measure(run, call_step, &step, &figure.timing);
    bool good = say_status(run->command, status) == EXIT_DONE;
    if (good) {
        char min[FORMAT_CAPACITY], median[FORMAT_CAPACITY], rate[FORMAT_CAPACITY], memory[FORMAT_CAPACITY],
            label[ATTENTION_LABEL_CAPACITY], parameters[FORMAT_CAPACITY];
        printf("%s parameters, %s, %lld x %lld tokens\n"
               "step       min %s, median %s of %d samples\n"
               "speed      %s tokens/s, %.1f useful GFLOP/s, %.0f %% of matmul\n"
               "memory     %s at the peak\n",
               format_count(parameters, (double)psk_model_parameter_count(step.model)),
               attention_label(label, attention), (long long)settings->batch, (long long)settings->context,
               format_time_short(min, figure.timing.min), format_time_short(median, figure.timing.median),
               figure.timing.samples, format_count(rate, figure.tokens / figure.timing.min), figure_gflops(&figure),
               100 * figure_share(run, &figure), format_bytes(memory, peak_memory()));
        good = bench_record(run, &figure);
    }
    step_close(&step);
    return good;
}

static exit_code run(step_settings *settings) {
    bench_run bench;
    psk_model_config config;
    exit_code code = say_status("bench step", model_options_config(&settings->model, &config));
    if (code != EXIT_DONE)
        return code;
    if (settings->context == 0)
        settings->context = config.n_positions;
    if (bench_begin(&bench, "bench step", &settings->bench, &code) &&
        !(check_step(&bench, settings, &config) && measure_step(&bench, settings, &config)))
        code = EXIT_FAILED;
    bench_end(&bench);
    return code;
}

exit_code bench_step(int argc, char **argv) {
    step_settings settings = {.bench = bench_settings_default(), .model = model_options_none(), .batch = 1};
    const command_option table[] = {
        {"batch-size", OPTION_COUNT, "N", "sequences", .target = &settings.batch, .low = 1, .high = 1e6},
        {"context", OPTION_LENGTH, NULL, "tokens a sequence", .target = &settings.context, .low = 1, .high = 1 << 30,
         .fallback = "the preset's"},
        {"recompute", OPTION_FLAG, NULL, "keep only the layers' inputs", .target = &settings.recompute},
    };
    command_option model[MODEL_OPTION_CAPACITY], measuring[BENCH_OPTION_COUNT], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Step", table), model_option_group(&settings.model, model),
                                   bench_option_group(&settings.bench, measuring),
                                   device_option_group(&settings.bench.device, device)};
    const command_usage usage = {
        .command = "bench step",
        .synopsis = "[options]",
        .summary = "A training step on random tokens: forward, backward, AdamW. Before it is timed, logits, loss and\n"
                   "gradient of the same configuration, shortened, must be those of the device \"reference\".",
        .examples = "  polysketch bench step --preset mini --batch-size 4 --context 512\n"
                    "  polysketch bench step --preset gpt2-small --context 8k --attention softmax --json bench.json",
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
