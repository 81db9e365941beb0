/* polysketch task: synthetic tasks, trained at one length and tested at many. */
#include "forms.h"
#include "plot.h"
#include "records.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct task_settings {
    psk_task task;
    psk_model_config model;
    psk_train_options run;
    form_options forms;
    option_list lengths;
    int64_t examples;
    double enough, far_scale; /* NAN: what suits each form */
    const char *output, *json, *plot;
    device_options device;
} task_settings;

/* One form of attention: its model, how training ended, and what it can do by length. */
typedef struct task_form {
    psk_attention_config attention;
    char label[ATTENTION_LABEL_CAPACITY];
    psk_task_progress trained;
    plot_series series; /* accuracy_all by length */
} task_form;

static const char *task_names(int index) {
    return psk_task_name((psk_task_kind)index);
}

/* ---------------------------------------------------------------------------------------------------------- training
 */

typedef struct task_screen {
    const task_settings *settings;
    const char *label;
    progress_line line;
    psk_task_progress last;
} task_screen;

static int on_step(void *user, const psk_task_progress *progress) {
    task_screen *const screen = user;
    const psk_train_options *const run = &screen->settings->run;
    const bool tested = run->eval_every > 0 && progress->step % run->eval_every == 0;
    char step[160], loss[32], accuracy[32] = "", left[64], text[FORMAT_CAPACITY];
    screen->last = *progress;
    if (progress_due(&screen->line, progress->step == 1 || (tested && progress->step % (10 * run->eval_every) == 0))) {
        double seconds = progress->seconds / (double)progress->step * (double)(progress->steps - progress->step);
        if (run->seconds > 0)
            seconds = fmin(seconds, fmax(0, run->seconds - progress->seconds));
        if (isfinite(progress->accuracy))
            snprintf(accuracy, sizeof accuracy, "accuracy %.3f  ", progress->accuracy);
        snprintf(step, sizeof step, "%s: step %lld/%lld  ", screen->label, (long long)progress->step,
                 (long long)progress->steps);
        snprintf(loss, sizeof loss, "loss %.4f  ", progress->loss);
        snprintf(left, sizeof left, "%s left", format_duration(text, seconds));
        progress_show(&screen->line, (const char *const[]){step, loss, accuracy, left}, 4);
    }
    return stop_requested();
}

static psk_status train_form(const task_settings *settings, task_form *form, psk_model *model) {
    task_screen screen = {.settings = settings, .label = form->label, .line = progress_start()};
    const psk_status status =
        psk_task_train(model, &settings->task, &settings->run, settings->enough, on_step, &screen);
    progress_end(&screen.line);
    form->trained = screen.last;
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- testing
 */

static bool write_record(const task_settings *settings, const task_form *form, const psk_model *model, int64_t N,
                         const psk_task_result *result) {
    if (!settings->json)
        return true;
    const psk_attention_config *const attention = &form->attention;
    const bool sketched = attention->mechanism == PSK_POLYSKETCH;
    json_t *const record = json_pack(
        "{s:s, s:s, s:s?, s:s?, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:I, "
        "s:o, s:o, s:o, s:I, s:s}",
        "task", psk_task_name(settings->task.kind), "mechanism", psk_mechanism_name(attention->mechanism), "sketch",
        sketched ? psk_sketch_name(attention->sketch) : NULL, "local", attention_local(attention), "degree",
        (json_int_t)attention->degree, "sketch_size", (json_int_t)attention->sketch_size, "block_size",
        (json_int_t)attention->block_size, "far_scale",
        sketched ? json_number((double)attention->far_scale) : json_null(), "layers",
        (json_int_t)settings->model.n_layer, "heads", (json_int_t)settings->model.n_head, "width",
        (json_int_t)settings->model.n_embd, "parameters", (json_int_t)psk_model_parameter_count(model), "vocab_size",
        (json_int_t)settings->task.vocab_size, "copies", (json_int_t)settings->task.copies, "train_n",
        (json_int_t)settings->run.context, "step", (json_int_t)form->trained.step, "loss",
        json_number(form->trained.loss), "seconds", json_number(form->trained.seconds), "seed",
        (json_int_t)settings->run.seed, "n", (json_int_t)N, "examples", (json_int_t)result->examples, "accuracy",
        json_number(result->accuracy), "accuracy_all", json_number(result->accuracy_all), "stderr",
        json_number(result->stderr_all), "shortest", (json_int_t)settings->task.shortest, "version", psk_version());
    return record_append("task", settings->json, record);
}

/* All lengths; the results stand in `results`. */
static exit_code test_form(const task_settings *settings, task_form *form, psk_model *model,
                           psk_task_result results[OPTION_LIST_CAPACITY]) {
    for (int i = 0; i < settings->lengths.count; i++) {
        const int64_t N = settings->lengths.values[i];
        char verb[ATTENTION_LABEL_CAPACITY + 32], length[FORMAT_CAPACITY];
        snprintf(verb, sizeof verb, "%s: testing at %s", form->label, format_length(length, N));
        progress_meter meter = {.verb = verb, .unit = "examples", .line = progress_start()};
        const psk_status status =
            psk_task_test(model, &settings->task, N, settings->examples, meter_progress, &meter, &results[i]);
        progress_end(&meter.line);
        if (status != PSK_OK)
            return say_status("task", status);
        if (!plot_add(&form->series, (double)N, results[i].accuracy_all)) {
            say_error("task", "out of memory");
            return EXIT_FAILED;
        }
        if (!write_record(settings, form, model, N, &results[i]))
            return EXIT_FAILED;
    }
    return EXIT_DONE;
}

/* ------------------------------------------------------------------------------------------------------------ tables
 */

#define LABEL_COLUMNS 36

static void print_head(const task_settings *settings) {
    char length[FORMAT_CAPACITY];
    printf("%s, trained on sequences of ", psk_task_name(settings->task.kind));
    if (settings->task.shortest > 0 && settings->task.shortest < settings->run.context)
        printf("%s to ", format_length(length, settings->task.shortest));
    printf("%s tokens, %lld test sequences a length\n\n", format_length(length, settings->run.context),
           (long long)settings->examples);
    printf("%-*s %7s %8s %-9s", LABEL_COLUMNS, "mechanism", "steps", "loss", "accuracy");
    for (int i = 0; i < settings->lengths.count; i++)
        printf(" %6s", format_length(length, settings->lengths.values[i]));
    putchar('\n');
    fflush(stdout);
}

static void print_form(const task_settings *settings, const task_form *form, const psk_task_result *results) {
    printf("%-*s %7lld %8.4f %-9s", LABEL_COLUMNS, form->label, (long long)form->trained.step, form->trained.loss,
           "answers");
    for (int i = 0; i < settings->lengths.count; i++)
        printf(" %6.3f", results[i].accuracy);
    putchar('\n');
    if (results[0].answers > results[0].examples) {
        printf("%-*s %7s %8s %-9s", LABEL_COLUMNS, "", "", "", "sequences");
        for (int i = 0; i < settings->lengths.count; i++)
            printf(" %6.3f", results[i].accuracy_all);
        putchar('\n');
    }
    fflush(stdout);
}

static bool draw(const task_settings *settings, task_form *forms, size_t count) {
    plot_series series[MOST_FORMS];
    char title[256], length[FORMAT_CAPACITY];
    for (size_t i = 0; i < count; i++) {
        series[i] = forms[i].series;
        memcpy(series[i].label, forms[i].label, sizeof forms[i].label);
        series[i].points = true;
        series[i].colour = (int)i;
    }
    snprintf(title, sizeof title, "%s, trained at %s tokens", psk_task_name(settings->task.kind),
             format_length(length, settings->run.context));
    const plot_axes axes = {.title = title,
                            .x_label = "length of the test sequences [tokens]",
                            .y_label = "sequences answered right",
                            .x_lengths = true};
    if (!plot_draw("task", settings->plot, &axes, series, count))
        return false;
    printf("\nthe picture is %s\n", settings->plot);
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- running
 */

/* OUTPUT/<mechanism>[-<sketch>][-<local>] */
static psk_status save_form(const task_settings *settings, const task_form *form, const psk_model *model) {
    char path[PATH_CAPACITY], name[ATTENTION_LABEL_CAPACITY * 2];
    const psk_attention_config *const attention = &form->attention;
    if (attention->mechanism == PSK_POLYSKETCH)
        snprintf(name, sizeof name, "%s-%s-%s", psk_mechanism_name(attention->mechanism),
                 psk_sketch_name(attention->sketch), psk_local_name(attention->local));
    else if (attention->local_only)
        snprintf(name, sizeof name, "%s-%s", psk_mechanism_name(attention->mechanism),
                 psk_local_name(attention->local));
    else
        snprintf(name, sizeof name, "%s", psk_mechanism_name(attention->mechanism));
    return psk_model_save(model, path_join(path, settings->output, name) ? path : settings->output);
}

static exit_code run_form(const task_settings *settings, psk_device *device, task_form *form) {
    psk_model *model = NULL;
    psk_task_result results[OPTION_LIST_CAPACITY];
    psk_model_config config = settings->model;
    config.attention = form->attention;
    config.vocab_size = settings->task.vocab_size;
    config.n_positions = settings->run.context;
    psk_status status = psk_model_create(device, &config, settings->run.seed, &model);
    if (status == PSK_OK)
        status = train_form(settings, form, model);
    if (status == PSK_OK && settings->output)
        status = save_form(settings, form, model);
    exit_code code = say_status("task", status);
    if (code == EXIT_DONE)
        code = test_form(settings, form, model, results);
    if (code == EXIT_DONE)
        print_form(settings, form, results);
    psk_model_free(model);
    return code;
}

static exit_code run_forms(const task_settings *settings, psk_device *device) {
    static task_form forms[MOST_FORMS];
    psk_attention_config list[MOST_FORMS];
    psk_model_config usual = settings->model;
    usual.n_positions = settings->run.context;
    const size_t count = list_forms(&settings->forms, &usual, list);
    exit_code code = EXIT_DONE;
    stop_on_signals();
    print_head(settings);
    for (size_t i = 0; i < count && code == EXIT_DONE; i++) {
        forms[i] = (task_form){.attention = list[i]};
        if (!isnan(settings->far_scale))
            forms[i].attention.far_scale = (float)settings->far_scale;
        attention_label(forms[i].label, &list[i]);
        code = run_form(settings, device, &forms[i]);
    }
    if (code == EXIT_DONE && settings->plot && !draw(settings, forms, count))
        code = EXIT_FAILED;
    for (size_t i = 0; i < count; i++)
        plot_release(&forms[i].series);
    return code;
}

static task_settings task_settings_default(void) {
    task_settings settings = {
        .task = psk_task_default(PSK_TASK_SELECTIVE_COPYING),
        .model = {.n_embd = 64, .n_layer = 2, .n_head = 2, .attention = psk_attention_config_default()},
        .run = psk_train_options_default(),
        .forms = form_options_default(),
        .lengths = {.values = {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}, .count = 9},
        .examples = 64,
        .enough = 0.999,
        .far_scale = NAN,
        .device = device_options_default(),
    };
    settings.model.attention.block_size = 32;
    settings.run.context = 256;
    settings.run.steps = 20000;
    settings.run.batch_size = 32;
    settings.run.learning_rate = 2e-3;
    settings.run.min_learning_rate = 2e-4;
    settings.run.weight_decay = 0;
    settings.run.eval_every = 100;
    settings.run.eval_batches = 8;
    return settings;
}

static psk_status check_length(const task_settings *settings, int64_t N) {
    return psk_task_examples(&settings->task, N, 0, 0, NULL, NULL);
}

/* Before anything is trained. Test lengths that the task does not have are refused; of the usual ones they are left
 * out. */
static exit_code check_lengths(task_settings *settings) {
    const option_list usual = task_settings_default().lengths, asked = settings->lengths;
    const bool chosen = asked.count != usual.count ||
                        memcmp(asked.values, usual.values, (size_t)usual.count * sizeof *usual.values) != 0;
    char length[FORMAT_CAPACITY];
    if (check_length(settings, settings->run.context) != PSK_OK)
        return say_status("task", PSK_ERROR_ARGUMENT);
    settings->lengths.count = 0;
    for (int i = 0; i < asked.count; i++) {
        if (check_length(settings, asked.values[i]) == PSK_OK)
            settings->lengths.values[settings->lengths.count++] = asked.values[i];
        else if (!chosen)
            fprintf(stderr, "not tested at %s tokens: %s\n", format_length(length, asked.values[i]),
                    psk_error_message());
        else {
            say_error("task", "--test-lengths: %s", psk_error_message());
            return EXIT_USAGE;
        }
    }
    if (settings->lengths.count > 0)
        return EXIT_DONE;
    say_error("task", "none of the usual lengths can be tested: name others with --test-lengths");
    return EXIT_USAGE;
}

static exit_code run(task_settings *settings, const char *name) {
    psk_device *device = NULL;
    int kind = 0;
    while (task_names(kind) && strcmp(task_names(kind), name) != 0)
        kind++;
    if (!task_names(kind)) {
        say_error("task", "no task '%s'; there are %s and %s", name, task_names(0), task_names(1));
        return EXIT_USAGE;
    }
    settings->task.kind = (psk_task_kind)kind;
    settings->task.seed = settings->run.seed;
    const exit_code checked = check_lengths(settings);
    if (checked != EXIT_DONE)
        return checked;
    if (!record_begin("task", settings->json) || (settings->plot && !can_write("task", settings->plot)))
        return EXIT_FAILED;
    const psk_status status = device_options_create(&settings->device, &device);
    const exit_code code = status == PSK_OK ? run_forms(settings, device) : say_status("task", status);
    psk_device_free(device);
    return code;
}

exit_code command_task(int argc, char **argv) {
    task_settings settings = task_settings_default();
    psk_train_options *const run_options = &settings.run;
    psk_model_config *const model = &settings.model;
    const command_option what[] = {
        {"length", OPTION_LENGTH, NULL, "tokens of the sequences in training", .target = &run_options->context,
         .low = 3, .high = 1 << 30},
        {"shortest", OPTION_LENGTH, NULL, "half of it, and half again, down to this is trained too (0: --length alone)",
         .target = &settings.task.shortest, .low = 0, .high = 1 << 30},
        {"test-lengths", OPTION_LENGTHS, NULL, "and in the tests; usual ones that the task does not have are left out",
         .target = &settings.lengths, .low = 3, .high = 1 << 30},
        {"examples", OPTION_COUNT, "N", "test sequences a length", .target = &settings.examples, .low = 1, .high = 1e9},
        {"vocabulary", OPTION_COUNT, "N", "tokens there are", .target = &settings.task.vocab_size, .low = 3,
         .high = 1 << 24},
        {"copies", OPTION_COUNT, "N", "selective_copying: tokens to copy", .target = &settings.task.copies, .low = 1,
         .high = 1 << 24},
    };
    const command_option sizes[] = {
        {"layers", OPTION_COUNT, "N", "layers", .target = &model->n_layer, .low = 1, .high = 4096},
        {"heads", OPTION_COUNT, "N", "heads a layer", .target = &model->n_head, .low = 1, .high = 4096},
        {"width", OPTION_COUNT, "N", "width of the model", .target = &model->n_embd, .low = 3, .high = 131072},
        {"degree", OPTION_COUNT, "N", "degree of the polynomial, even", .target = &model->attention.degree, .low = 2,
         .high = 64},
        {"sketch-size", OPTION_COUNT, "N", "numbers in a sketch; features of performer",
         .target = &model->attention.sketch_size, .low = 1, .high = 4096},
        {"block-size", OPTION_LENGTH, NULL, "tokens in a block of the local part",
         .target = &model->attention.block_size, .low = 1, .high = 1 << 24},
        {"far-scale", OPTION_REAL, NULL, "polysketch: factor on sketched weights", &settings.far_scale, .low = 0,
         .high = 1e6, .fallback = "what suits the sketch"},
    };
    const command_option training[] = {
        {"steps", OPTION_COUNT, NULL, "optimiser steps a form, at most", .target = &run_options->steps, .low = 1,
         .high = 1e9},
        {"seconds", OPTION_REAL, NULL,
         "stop after so many seconds a form (0: no limit); the schedule follows the clock",
         .target = &run_options->seconds, .low = 0, .high = 1e9},
        {"enough", OPTION_REAL, NULL, "stop when this part of the test sequences is right (above 1: never)",
         .target = &settings.enough, .low = 0, .high = 2},
        {"eval-every", OPTION_COUNT, NULL, "steps between tests at --length", .target = &run_options->eval_every,
         .low = 0, .high = 1e12},
        {"batch-size", OPTION_COUNT, "N", "sequences a step", .target = &run_options->batch_size, .low = 1,
         .high = 1e6},
        {"learning-rate", OPTION_REAL, NULL, "at its peak; a tenth of it at the end",
         .target = &run_options->learning_rate, .low = 0, .high = 100},
        {"warmup-steps", OPTION_COUNT, NULL, "steps up to the peak", .target = &run_options->warmup_steps, .low = 0,
         .high = 1e12},
        {"seed", OPTION_SEED, NULL, "of weights and sequences", .target = &run_options->seed},
    };
    const command_option files[] = {
        {"output", OPTION_TEXT, "DIR", "keep the models there, a folder a form", .target = &settings.output},
        {"json", OPTION_TEXT, "FILE", "append the figures, one object a line; -: to standard output, alone",
         .target = &settings.json},
        {"plot", OPTION_PICTURE, NULL, "draw accuracy against length (needs gnuplot)", .target = &settings.plot},
    };
    command_option forms[FORM_OPTION_COUNT], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Task", what),     form_option_group(&settings.forms, forms),
                                   OPTION_GROUP("Sizes", sizes),   OPTION_GROUP("Training", training),
                                   OPTION_GROUP("Results", files), device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "task",
        .synopsis = "TASK [options]",
        .summary = "Trains small models on a synthetic task at one length, and tests them at many. The tasks:\n"
                   "  selective_copying  repeat, in order, the data tokens that stood among noise\n"
                   "  induction_heads    say what followed the marker when it came before\n"
                   "A sequence is right if every answer is; an answer is given with the right ones before it.",
        .examples = "  polysketch task selective_copying --mechanisms softmax,polysketch --locals all\n"
                    "  polysketch task induction_heads --seconds 120 --json tasks.jsonl --plot induction.png",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
        .operand = "TASK (selective_copying or induction_heads)",
        .operand_least = 1,
        .operand_most = 1,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code)) {
        run_options->min_learning_rate = run_options->learning_rate / 10;
        code = run(&settings, line.operands[0]);
    }
    options_free(&line);
    return code;
}
