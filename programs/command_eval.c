/* polysketch eval: how well a model predicts a text. */
#include "model_options.h"
#include "records.h"
#include "terminal.h"

#include <stdio.h>

typedef struct eval_settings {
    const char *model, *json;
    int split;
    psk_eval_options run;
    device_options device;
} eval_settings;

static const char *const splits[] = {"valid", "train", NULL};

static void print_result(const eval_settings *settings, const psk_eval_result *result, double seconds) {
    char tokens[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY], rate[FORMAT_CAPACITY], time[FORMAT_CAPACITY];
    printf("model           %s\n", settings->model);
    printf("data            %s\n", settings->run.data);
    printf("tokens          %s (%s) in windows of %lld\n", format_count(tokens, (double)result->tokens),
           format_bytes(bytes, result->bytes), (long long)settings->run.context);
    printf("loss            %.4f nats a token\n", result->loss);
    printf("perplexity      %.4f\n", result->perplexity);
    printf("bits per byte   %.4f\n", result->bits_per_byte);
    printf("speed           %s tokens/s (%s)\n", format_count(rate, (double)result->tokens / seconds),
           format_time_short(time, seconds));
}

static bool write_json(const eval_settings *settings, const psk_eval_result *result, double seconds) {
    json_t *const record =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:s}", "model", settings->model, "data",
                  settings->run.data, "split", settings->run.split, "context", (json_int_t)settings->run.context,
                  "tokens", (json_int_t)result->tokens, "bytes", (json_int_t)result->bytes, "loss",
                  json_number(result->loss), "perplexity", json_number(result->perplexity), "bits_per_byte",
                  json_number(result->bits_per_byte), "seconds", json_number(seconds), "version", psk_version());
    return record_write("eval", settings->json, record);
}

static exit_code evaluate(eval_settings *settings, psk_model *model) {
    progress_meter meter = {.verb = "evaluating", .unit = "tokens", .line = progress_start()};
    psk_eval_result result;
    if (settings->run.context == 0)
        settings->run.context = psk_model_get_config(model)->n_positions;
    settings->run.split = splits[settings->split];
    settings->run.progress = meter_progress;
    settings->run.user = &meter;
    stop_on_signals();
    const double start = seconds_now();
    const psk_status status = psk_evaluate(model, &settings->run, &result);
    const double seconds = seconds_now() - start;
    progress_end(&meter.line);
    if (status != PSK_OK)
        return say_status("eval", status);
    print_result(settings, &result, seconds);
    return settings->json && !write_json(settings, &result, seconds) ? EXIT_FAILED : EXIT_DONE;
}

static exit_code run(eval_settings *settings) {
    if (settings->json && !can_write("eval", settings->json))
        return EXIT_FAILED;
    psk_device *device = NULL;
    psk_model *model = NULL;
    char path[PATH_CAPACITY];
    psk_status status = device_options_create(&settings->device, &device);
    if (status == PSK_OK)
        status = psk_model_load(device, model_folder(settings->model, path), &model);
    const exit_code code = status == PSK_OK ? evaluate(settings, model) : say_status("eval", status);
    psk_model_free(model);
    psk_device_free(device);
    return code;
}

exit_code command_eval(int argc, char **argv) {
    eval_settings settings = {.run = psk_eval_options_default(), .device = device_options_default()};
    const command_option table[] = {
        {"model", OPTION_TEXT, "DIR", "a model folder or a run", .target = &settings.model, .required = true},
        {"data", OPTION_TEXT, "PATH", "folder made by 'polysketch prepare', or a text file",
         .target = &settings.run.data, .required = true},
        {"split", OPTION_CHOICE, NULL, "of a folder", .target = &settings.split, .names = splits},
        {"context", OPTION_LENGTH, NULL, "tokens a window", .target = &settings.run.context, .low = 1, .high = 1 << 30,
         .fallback = "the model's"},
        {"batch-size", OPTION_COUNT, "N", "windows at once", .target = &settings.run.batch_size, .low = 1, .high = 1e6},
        {"max-tokens", OPTION_COUNT, NULL, "tokens to predict (0: all)", .target = &settings.run.max_tokens, .low = 0,
         .high = 1e15},
        {"json", OPTION_TEXT, "FILE", "write the figures there too", .target = &settings.json},
    };
    command_option device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Options", table), device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "eval",
        .synopsis = "--model DIR --data PATH [options]",
        .summary =
            "Perplexity and bits per byte of a model on a text, in windows that do not overlap: the first tokens\n"
            "of a window have little context, so a longer one gives better figures.",
        .examples = "  polysketch eval --model run --data tokens\n"
                    "  polysketch eval --model run --data other-book.txt --context 4k --json eval.json",
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
