/* polysketch train: shards -> a trained model in a run folder. */
#include "model_options.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct train_settings {
    model_options model;
    device_options device;
    psk_train_options run;
    int schedule, dry_run;
    char data[PATH_CAPACITY]; /* of a resumed run */
} train_settings;

static const char *const schedules[] = {
    [PSK_SCHEDULE_COSINE] = "cosine", [PSK_SCHEDULE_LINEAR] = "linear", [PSK_SCHEDULE_CONSTANT] = "constant", NULL};

static const char train_examples[] =
    "  polysketch train --data tokens --output run --preset tiny --seconds 120\n"
    "  polysketch train --data tokens --output run --preset mini --context 2k --steps 20k --learning-rate 6e-4\n"
    "  polysketch train --data tokens --output run-softmax --preset mini --attention softmax\n"
    "  polysketch train --output run --resume          after Ctrl-C, or a crash\n"
    "  polysketch train --preset gpt2-small --context 32k --batch-size 1 --dry-run";

static exit_code read_settings(train_settings *settings, int argc, char **argv, command_line *line, bool *go_on) {
    psk_train_options *const run = &settings->run;
    settings->schedule = run->schedule;
    const command_option files[] = {
        {"data", OPTION_TEXT, "DIR", "folder made by 'polysketch prepare'", .target = &run->data},
        {"output", OPTION_TEXT, "RUN", "folder for checkpoints, metrics and the model", .target = &run->output},
        {"resume", OPTION_FLAG, NULL, "go on from the newest checkpoint of RUN, with its settings",
         .target = &run->resume},
        {"dry-run", OPTION_FLAG, NULL, "say what memory it will take, and end", .target = &settings->dry_run},
    };
    const command_option length[] = {
        {"steps", OPTION_COUNT, NULL, "optimiser steps in all", &run->steps, .low = 1, .high = 1e12},
        {"seconds", OPTION_REAL, NULL, "stop after so many seconds (0: no limit); the schedule follows the clock",
         &run->seconds, .low = 0, .high = 1e9},
        {"batch-size", OPTION_COUNT, "N", "sequences a micro-batch", &run->batch_size, .low = 1, .high = 1e6},
        {"context", OPTION_LENGTH, NULL, "tokens a sequence", &run->context, .low = 1, .high = 1 << 30,
         .fallback = "the preset's"},
        {"accumulate", OPTION_COUNT, "N", "micro-batches a step", &run->accumulate, .low = 1, .high = 1e6},
    };
    const command_option optimiser[] = {
        {"learning-rate", OPTION_REAL, NULL, "at its peak", &run->learning_rate, .low = 0, .high = 100},
        {"min-learning-rate", OPTION_REAL, NULL, "at the end", &run->min_learning_rate, .low = 0, .high = 100},
        {"warmup-steps", OPTION_COUNT, NULL, "steps up to the peak", &run->warmup_steps, .low = 0, .high = 1e12},
        {"schedule", OPTION_CHOICE, NULL, "from peak to end", &settings->schedule, .names = schedules},
        {"beta1", OPTION_REAL, NULL, "AdamW: decay of the mean gradient", &run->beta1, .low = 0, .high = 0.999999},
        {"beta2", OPTION_REAL, NULL, "AdamW: decay of its square", &run->beta2, .low = 0, .high = 0.999999},
        {"epsilon", OPTION_REAL, NULL, "AdamW: beside the root of the square", &run->epsilon, .low = 1e-20, .high = 1},
        {"weight-decay", OPTION_REAL, NULL, "AdamW: of matrices", &run->weight_decay, .low = 0, .high = 100},
        {"grad-clip", OPTION_REAL, NULL, "largest norm of the gradient (0: any)", &run->grad_clip, .low = 0,
         .high = 1e9},
        {"dropout", OPTION_REAL, NULL, "part of the activations that is dropped", &run->dropout, .low = 0,
         .high = 0.99},
        {"seed", OPTION_SEED, NULL, "of weights, order of the data, dropout", .target = &run->seed},
        {"reset-at-documents", OPTION_FLAG, NULL, "attention starts afresh at each end-of-text",
         .target = &run->reset_at_documents},
        {"align-documents", OPTION_FLAG, NULL, "documents as long as the context begin their windows",
         .target = &run->align_documents},
        {"recompute", OPTION_FLAG, NULL, "keep only the layers' inputs: less memory, more time",
         .target = &run->recompute},
    };
    const command_option rhythm[] = {
        {"eval-every", OPTION_COUNT, NULL, "steps between evaluations (0: none)", &run->eval_every, .low = 0,
         .high = 1e12},
        {"eval-batches", OPTION_COUNT, "N", "micro-batches of an evaluation", &run->eval_batches, .low = 0,
         .high = 1e9},
        {"save-every", OPTION_COUNT, NULL, "steps between checkpoints (0: only at the end)", &run->save_every, .low = 0,
         .high = 1e12},
        {"keep-last", OPTION_COUNT, "N", "checkpoints to keep beside the best", &run->keep_last, .low = 0, .high = 1e6},
    };
    command_option model[MODEL_OPTION_CAPACITY], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Data and run", files),
                                   OPTION_GROUP("How long", length),
                                   model_option_group(&settings->model, model),
                                   OPTION_GROUP("Optimiser", optimiser),
                                   OPTION_GROUP("Rhythm", rhythm),
                                   device_option_group(&settings->device, device)};
    const command_usage usage = {
        .command = "train",
        .synopsis = "--data DIR --output RUN [options]",
        .summary =
            "Trains a model on shards. Ctrl-C writes a checkpoint and ends, and so do SIGTERM and a terminal that is\n"
            "closed; --resume goes on from there.",
        .examples = train_examples,
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    exit_code code = EXIT_DONE;
    *go_on = options_read(&usage, argc, argv, line, &code);
    run->schedule = (psk_schedule)settings->schedule;
    run->precision = (psk_precision)settings->device.precision;
    return code;
}

/* The settings of a run that goes on: those it was started with, below what the command line says now. */
static exit_code read_resumed(train_settings *settings, int argc, char **argv, command_line *line, bool *go_on) {
    psk_train_options saved;
    char path[PATH_CAPACITY];
    *go_on = false;
    if (!path_join(path, settings->run.output, "options.json") || !path_exists(path)) {
        say_error("train", "--resume: %s holds no run, for it has no options.json", settings->run.output);
        return EXIT_FAILED;
    }
    const psk_status status = psk_train_options_read(settings->run.output, &saved, settings->data, PATH_CAPACITY);
    if (status != PSK_OK)
        return say_status("train", status);
    options_free(line);
    settings->model = model_options_none();
    settings->device = device_options_default();
    settings->device.precision = saved.precision;
    settings->run = saved;
    return read_settings(settings, argc, argv, line, go_on);
}

/* A dry run needs neither data nor output, a resumed one knows its data. */
static exit_code check_settings(const train_settings *settings) {
    const psk_train_options *const run = &settings->run;
    const char *missing = NULL;
    if (!run->output && (run->resume || !settings->dry_run))
        missing = "--output RUN";
    else if (!run->data && !run->resume && !settings->dry_run)
        missing = "--data DIR";
    if (!missing)
        return EXIT_DONE;
    say_error("train", "%s is missing", missing);
    fprintf(stderr, "'polysketch train --help' tells what there is\n");
    return EXIT_USAGE;
}

static exit_code check_rates(const psk_train_options *run) {
    if (run->min_learning_rate <= run->learning_rate)
        return EXIT_DONE;
    say_error("train", "--min-learning-rate is %g, above --learning-rate, %g: lower it too", run->min_learning_rate,
              run->learning_rate);
    return EXIT_USAGE;
}

/* vocab_size is the data's; without data (a dry run) the preset's stays. */
static exit_code read_vocabulary(const train_settings *settings, psk_model_config *config) {
    char path[PATH_CAPACITY];
    psk_shard_info info;
    if (!settings->run.data)
        return EXIT_DONE;
    if (!path_join(path, settings->run.data, "train-00000.psk") || !path_exists(path)) {
        psk_prepare_result unused;
        if (path_join(path, settings->run.data, "prepare.json") && path_exists(path) &&
            psk_prepare_check(settings->run.data, &unused) != PSK_OK)
            return say_status("train", PSK_ERROR_FORMAT); /* not finished */
        say_error("train", "%s has no train-00000.psk: make the folder with 'polysketch prepare'", settings->run.data);
        return EXIT_FAILED;
    }
    const psk_status status = psk_shard_read_info(path, 0, &info);
    if (status == PSK_OK)
        config->vocab_size = info.vocab_size;
    return say_status("train", status);
}

/* The config of a resumed run is its own; a new one's is preset and options. */
static exit_code make_config(train_settings *settings, psk_model_config *config) {
    char path[PATH_CAPACITY];
    const psk_train_options *const run = &settings->run;
    psk_status status;
    settings->model.context = run->context;
    if (run->resume && !settings->model.preset) {
        if (!path_join(path, run->output, "config.json"))
            path[0] = '\0';
        status = psk_model_config_read(path, config);
        if (status == PSK_OK)
            model_options_apply(&settings->model, config);
    } else
        status = model_options_config(&settings->model, config);
    if (status != PSK_OK)
        return say_status("train", status);
    const exit_code code = read_vocabulary(settings, config);
    if (code != EXIT_DONE)
        return code;
    if (run->context)
        config->n_positions = run->context;
    else
        settings->run.context = config->n_positions;
    return say_status("train", psk_model_config_check(config));
}

static exit_code print_memory(const train_settings *settings, const psk_model_config *config) {
    psk_memory_report report;
    char text[FORMAT_CAPACITY];
    const psk_train_options *const run = &settings->run;
    const psk_status status = psk_model_memory(config, run->batch_size, run->context, 1, run->recompute, &report);
    if (status != PSK_OK)
        return say_status("train", status);
    printf("a step of %lld x %lld tokens takes\n", (long long)run->batch_size, (long long)run->context);
    for (int64_t i = 0; i < report.count; i++)
        printf("  %-16s %10s\n", report.lines[i].category, format_bytes(text, report.lines[i].bytes));
    printf("  %-16s %10s\n", "in all", format_bytes(text, report.total));
    return EXIT_DONE;
}

/* ---------------------------------------------------------------------------------------------------------- running
 */

typedef struct train_screen {
    progress_line line;
    psk_train_progress last;
    double valid_loss; /* the latest one */
} train_screen;

static void show_progress(train_screen *screen, const psk_train_progress *progress) {
    char step[64], loss[32], valid[32] = "", rate[64], learning_rate[32], left[64], text[FORMAT_CAPACITY];
    snprintf(step, sizeof step, "step %lld/%lld  ", (long long)progress->step, (long long)progress->steps);
    snprintf(loss, sizeof loss, "loss %.4f  ", progress->loss);
    if (isfinite(screen->valid_loss))
        snprintf(valid, sizeof valid, "valid %.4f  ", screen->valid_loss);
    snprintf(learning_rate, sizeof learning_rate, "lr %.2e  ", progress->learning_rate);
    snprintf(rate, sizeof rate, "%s tok/s  ", format_count(text, progress->tokens_per_second));
    snprintf(left, sizeof left, "%s left", format_duration(text, progress->seconds_left));
    progress_show(&screen->line, (const char *const[]){step, loss, valid, learning_rate, rate, left}, 6);
}

static int on_progress(void *user, const psk_train_progress *progress) {
    train_screen *const screen = user;
    const bool evaluated = isfinite(progress->valid_loss) && progress->valid_loss != screen->valid_loss;
    const bool computed = isfinite(progress->tokens_per_second), first = !isfinite(screen->last.tokens_per_second);
    if (isfinite(progress->valid_loss))
        screen->valid_loss = progress->valid_loss;
    screen->last = *progress;
    if (progress->note)
        progress_note(&screen->line, progress->note);
    if (computed && progress_due(&screen->line, first || evaluated))
        show_progress(screen, progress);
    return stop_requested();
}

static void print_model(const psk_model *model, const psk_device *device) {
    const psk_model_config *const config = psk_model_get_config(model);
    char parameters[FORMAT_CAPACITY], attention[ATTENTION_LABEL_CAPACITY];
    fprintf(stderr, "%s parameters, %lld layers, %lld heads, width %lld; %s; in %s on %s\n",
            format_count(parameters, (double)psk_model_parameter_count(model)), (long long)config->n_layer,
            (long long)config->n_head, (long long)config->n_embd, attention_label(attention, &config->attention),
            psk_precision_name(psk_device_precision(device)), psk_device_description(device));
}

static void print_next(const psk_train_options *run) {
    char path[PATH_CAPACITY], output[QUOTED_CAPACITY], data[QUOTED_CAPACITY];
    const bool best = path_join(path, run->output, "best") && path_exists(path);
    format_quoted(output, run->output);
    printf("the model (%slast), its checkpoints and metrics.jsonl are in %s\n"
           "next: polysketch eval --model %s --data %s\n"
           "      polysketch generate --model %s --prompt 'It was'\n"
           "      polysketch plot %s --output loss.png\n",
           best ? "best, " : "", run->output, output, format_quoted(data, run->data), output, output);
}

/* And what to do, where that is known. */
static exit_code say_failure(const psk_train_options *run, psk_status status) {
    const exit_code code = say_status("train", status);
    char output[QUOTED_CAPACITY];
    if (status == PSK_ERROR_INTERRUPTED)
        fprintf(stderr, "continue with: polysketch train --resume --output %s\n", format_quoted(output, run->output));
    if (status == PSK_ERROR_MEMORY)
        fprintf(stderr, "a smaller --batch-size or --context takes less, and so does --recompute; --dry-run tells how "
                        "much, by what it is for\n");
    return code;
}

static exit_code finish(const train_settings *settings, const train_screen *screen, psk_status status) {
    const psk_train_options *const run = &settings->run;
    const psk_train_progress *const last = &screen->last;
    char tokens[FORMAT_CAPACITY], time[FORMAT_CAPACITY];
    if (status != PSK_OK)
        return say_failure(run, status);
    printf("%lld steps, %s tokens in %s", (long long)last->step, format_count(tokens, (double)last->tokens),
           format_duration(time, last->seconds));
    if (isfinite(last->loss)) /* not in a run that was over, and has no metrics.jsonl any more */
        printf(": loss %.4f", last->loss);
    if (isfinite(last->best_valid_loss))
        printf(", best valid loss %.4f", last->best_valid_loss);
    putchar('\n');
    print_next(run);
    return EXIT_DONE;
}

static exit_code run_training(const train_settings *settings, const psk_model_config *config) {
    psk_device *device = NULL;
    psk_model *model = NULL;
    exit_code code;
    psk_status status = device_options_create(&settings->device, &device);
    if (status == PSK_OK)
        status = psk_model_create(device, config, settings->run.seed, &model);
    if (status == PSK_OK) {
        train_screen screen = {.line = progress_start(), .last.tokens_per_second = NAN, .valid_loss = NAN};
        stop_notice("stopping: when the step is done, a checkpoint is written (Ctrl-C again ends at once, without)");
        stop_on_signals();
        print_model(model, device);
        status = psk_train(model, &settings->run, on_progress, &screen);
        progress_end(&screen.line);
        code = finish(settings, &screen, status);
    } else
        code = say_failure(&settings->run, status);
    psk_model_free(model);
    psk_device_free(device);
    return code;
}

exit_code command_train(int argc, char **argv) {
    train_settings settings = {
        .model = model_options_none(), .device = device_options_default(), .run = psk_train_options_default()};
    command_line line = {0};
    psk_model_config config;
    bool go_on;
    settings.run.context = 0; /* the preset's, unless the user says otherwise */
    settings.run.data = NULL;
    settings.run.output = NULL;
    exit_code code = read_settings(&settings, argc, argv, &line, &go_on);
    if (go_on)
        go_on = (code = check_settings(&settings)) == EXIT_DONE;
    if (go_on && settings.run.resume)
        code = read_resumed(&settings, argc, argv, &line, &go_on);
    if (go_on && (code = check_rates(&settings.run)) == EXIT_DONE)
        code = make_config(&settings, &config);
    if (go_on && code == EXIT_DONE)
        code = settings.dry_run ? print_memory(&settings, &config) : run_training(&settings, &config);
    options_free(&line);
    return code;
}
