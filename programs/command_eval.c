/* polysketch eval: how well a model predicts a text, or answers multiple-choice questions. */
#include "model_options.h"
#include "plot.h"
#include "records.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

typedef struct eval_settings {
    const char *model, *json, *plot;
    int split, positions;
    psk_eval_options run;
    psk_choice_options choices;
    device_options device;
    psk_tokenizer *tokenizer; /* the model's; NULL: shards have their own */
} eval_settings;

static const char *const splits[] = {"valid", "train", NULL};

/* -------------------------------------------------------------------------------------------------------------- text
 */

/* Into text, which is returned: a dash for a figure that is not defined, as the error of one window. */
static const char *format_figure(char *text, double value) {
    snprintf(text, FORMAT_CAPACITY, isfinite(value) ? "%.4f" : "-", value);
    return text;
}

static void print_error(double error) {
    if (isfinite(error))
        printf(" +- %.4f", error);
}

static void print_positions(const psk_eval_result *result) {
    printf("\nloss by position in the context, nats a token\n%10s %10s %12s %10s %10s\n", "from", "to", "tokens",
           "loss", "stderr");
    for (int64_t i = 0; i < result->bucket_count; i++) {
        const psk_eval_bucket *const bucket = &result->buckets[i];
        char error[FORMAT_CAPACITY];
        printf("%10lld %10lld %12lld %10.4f %10s\n", (long long)bucket->first, (long long)bucket->last,
               (long long)bucket->tokens, bucket->loss, format_figure(error, bucket->standard_error));
    }
}

static void print_result(const eval_settings *settings, const psk_eval_result *result, double seconds) {
    char tokens[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY], rate[FORMAT_CAPACITY], time[FORMAT_CAPACITY],
        bits[FORMAT_CAPACITY];
    printf("model           %s\n", settings->model);
    printf("data            %s\n", settings->run.data);
    printf("tokens          %s (%s, %lld words) in windows of %lld, one every %lld\n",
           format_count(tokens, (double)result->tokens), format_bytes(bytes, result->bytes), (long long)result->words,
           (long long)settings->run.context, (long long)settings->run.stride);
    printf("loss            %.4f", result->loss);
    print_error(result->standard_error);
    printf(" nats a token\nperplexity      %.4f a token", result->perplexity);
    if (isfinite(result->word_perplexity))
        printf(", %.5g a word", result->word_perplexity);
    printf("\nbits per byte   %s\n", format_figure(bits, result->bits_per_byte));
    printf("speed           %s tokens/s (%s)\n", format_count(rate, (double)result->tokens / seconds),
           format_time_short(time, seconds));
    if (settings->positions)
        print_positions(result);
}

static json_t *positions_record(const psk_eval_result *result) {
    json_t *const list = json_array();
    for (int64_t i = 0; i < result->bucket_count; i++) {
        const psk_eval_bucket *const bucket = &result->buckets[i];
        json_array_append_new(list,
                              json_pack("{s:I, s:I, s:I, s:o, s:o}", "first", (json_int_t)bucket->first, "last",
                                        (json_int_t)bucket->last, "tokens", (json_int_t)bucket->tokens, "loss",
                                        json_number(bucket->loss), "stderr", json_number(bucket->standard_error)));
    }
    return list;
}

static bool write_result(const eval_settings *settings, const psk_eval_result *result, double seconds) {
    if (!settings->json)
        return true;
    json_t *const record = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "model", settings->model,
        "data", settings->run.data, "split", settings->run.split, "context", (json_int_t)settings->run.context,
        "stride", (json_int_t)settings->run.stride, "tokens", (json_int_t)result->tokens, "bytes",
        (json_int_t)result->bytes, "words", (json_int_t)result->words, "loss", json_number(result->loss), "stderr",
        json_number(result->standard_error), "perplexity", json_number(result->perplexity), "word_perplexity",
        json_number(result->word_perplexity), "bits_per_byte", json_number(result->bits_per_byte), "by_position",
        positions_record(result), "seconds", json_number(seconds), "version", psk_version());
    return record_write("eval", settings->json, record);
}

static bool draw(const eval_settings *settings, const psk_eval_result *result) {
    plot_series series = {.points = true};
    bool good = true;
    if (!settings->plot)
        return true;
    snprintf(series.label, sizeof series.label, "%.120s", settings->model);
    for (int64_t i = 0; i < result->bucket_count && good; i++)
        good = plot_add(&series, 0.5 * (double)(result->buckets[i].first + result->buckets[i].last),
                        result->buckets[i].loss);
    if (!good)
        say_error("eval", "out of memory");
    const plot_axes axes = {.title = "Loss by position in the context",
                            .x_label = "tokens of context",
                            .y_label = "loss [nats per token]",
                            .x_lengths = true};
    good = good && plot_draw("eval", settings->plot, &axes, &series, 1);
    plot_release(&series);
    if (good)
        printf("\nthe picture is %s\n", settings->plot);
    return good;
}

static exit_code evaluate_text(eval_settings *settings, psk_model *model) {
    progress_meter meter = {.verb = "evaluating", .unit = "tokens", .line = progress_start()};
    psk_eval_result result;
    if (settings->run.context == 0)
        settings->run.context = psk_model_get_config(model)->n_positions;
    if (settings->run.stride == 0)
        settings->run.stride = settings->run.context;
    settings->run.split = splits[settings->split];
    settings->run.tokenizer = settings->tokenizer;
    settings->run.progress = meter_progress;
    settings->run.user = &meter;
    const double start = seconds_now();
    const psk_status status = psk_evaluate(model, &settings->run, &result);
    const double seconds = seconds_now() - start;
    progress_end(&meter.line);
    if (status != PSK_OK)
        return say_status("eval", status);
    print_result(settings, &result, seconds);
    return write_result(settings, &result, seconds) && draw(settings, &result) ? EXIT_DONE : EXIT_FAILED;
}

/* --------------------------------------------------------------------------------------------------------- questions
 */

static void print_choices(const eval_settings *settings, const psk_choice_result *result, double seconds) {
    char tokens[FORMAT_CAPACITY], rate[FORMAT_CAPACITY], time[FORMAT_CAPACITY];
    printf("model           %s\n", settings->model);
    printf("questions       %s\n", settings->choices.questions);
    printf("asked           %lld, %lld choices, %s tokens, %lld shots\n", (long long)result->questions,
           (long long)result->choices, format_count(tokens, (double)result->tokens),
           (long long)settings->choices.shots);
    if (result->truncated)
        printf("cut             %lld choices are longer than %lld tokens with what is before them: the beginning is "
               "left out\n",
               (long long)result->truncated, (long long)settings->choices.context);
    printf("accuracy        %.4f", result->accuracy);
    print_error(result->standard_error);
    printf("\naccuracy_norm   %.4f", result->accuracy_norm);
    print_error(result->standard_error_norm);
    puts(", by log-probability a character");
    printf("speed           %s tokens/s (%s)\n", format_count(rate, (double)result->tokens / seconds),
           format_time_short(time, seconds));
}

static bool write_choices(const eval_settings *settings, const psk_choice_result *result, double seconds) {
    if (!settings->json)
        return true;
    json_t *const record = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:s}", "model", settings->model, "questions",
        settings->choices.questions, "shots", (json_int_t)settings->choices.shots, "context",
        (json_int_t)settings->choices.context, "asked", (json_int_t)result->questions, "choices",
        (json_int_t)result->choices, "tokens", (json_int_t)result->tokens, "truncated", (json_int_t)result->truncated,
        "accuracy", json_number(result->accuracy), "stderr", json_number(result->standard_error), "accuracy_norm",
        json_number(result->accuracy_norm), "stderr_norm", json_number(result->standard_error_norm), "seconds",
        json_number(seconds), "version", psk_version());
    return record_write("eval", settings->json, record);
}

static exit_code evaluate_choices(eval_settings *settings, psk_model *model) {
    progress_meter meter = {.verb = "asking", .unit = "tokens", .line = progress_start()};
    psk_choice_options *const choices = &settings->choices;
    psk_choice_result result;
    choices->context = settings->run.context;
    if (choices->context == 0)
        choices->context = psk_model_get_config(model)->n_positions;
    choices->batch_size = settings->run.batch_size;
    choices->tokenizer = settings->tokenizer;
    choices->progress = meter_progress;
    choices->user = &meter;
    const double start = seconds_now();
    const psk_status status = psk_evaluate_choices(model, choices, &result);
    const double seconds = seconds_now() - start;
    progress_end(&meter.line);
    if (status != PSK_OK)
        return say_status("eval", status);
    print_choices(settings, &result, seconds);
    return write_choices(settings, &result, seconds) ? EXIT_DONE : EXIT_FAILED;
}

/* ----------------------------------------------------------------------------------------------------------- running
 */

static bool is_folder(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

static exit_code run(eval_settings *settings) {
    psk_device *device = NULL;
    psk_model *model = NULL;
    char path[PATH_CAPACITY];
    if (!record_begin("eval", settings->json) || (settings->plot && !can_write("eval", settings->plot)))
        return EXIT_FAILED;
    const char *const folder = find_model("eval", settings->model, path);
    if (!folder)
        return EXIT_FAILED;
    psk_status status = device_options_create(&settings->device, &device);
    if (status == PSK_OK)
        status = psk_model_load(device, folder, &model);
    if (status == PSK_OK && !(settings->run.data && is_folder(settings->run.data)))
        status = psk_tokenizer_load(folder, &settings->tokenizer);
    stop_on_signals();
    const exit_code code = status != PSK_OK     ? say_status("eval", status)
                           : settings->run.data ? evaluate_text(settings, model)
                                                : evaluate_choices(settings, model);
    psk_tokenizer_free(settings->tokenizer);
    psk_model_free(model);
    psk_device_free(device);
    return code;
}

/* One subject: the figures of a run have one meaning each. */
static exit_code check_subject(const eval_settings *settings) {
    if (!settings->run.data == !settings->choices.questions)
        say_error("eval", settings->run.data ? "--data and --questions are both given: one of them, please"
                                             : "--data PATH or --questions FILE is missing");
    else if (settings->plot && !settings->run.data)
        say_error("eval", "--plot draws the loss by position of --data");
    else
        return EXIT_DONE;
    fprintf(stderr, "'polysketch eval --help' tells what there is\n");
    return EXIT_USAGE;
}

exit_code command_eval(int argc, char **argv) {
    eval_settings settings = {
        .run = psk_eval_options_default(), .choices = psk_choice_options_default(), .device = device_options_default()};
    psk_eval_options *const text = &settings.run;
    psk_choice_options *const choices = &settings.choices;
    const command_option both[] = {
        {"model", OPTION_TEXT, "DIR", MODEL_HELP, .target = &settings.model, .required = true},
        {"context", OPTION_LENGTH, NULL, "tokens a window; of a question with its choice", .target = &text->context,
         .low = 1, .high = 1 << 30, .fallback = "the model's"},
        {"batch-size", OPTION_COUNT, "N", "windows or choices at once", .target = &text->batch_size, .low = 1,
         .high = 1e6},
        {"json", OPTION_TEXT, "FILE", "write the figures there too; -: to standard output, alone",
         .target = &settings.json},
    };
    const command_option of_text[] = {
        {"data", OPTION_TEXT, "PATH",
         "folder made by 'polysketch prepare', or a file that it would read; -: standard input", .target = &text->data},
        {"split", OPTION_CHOICE, NULL, "of a folder", .target = &settings.split, .names = splits},
        {"stride", OPTION_LENGTH, NULL, "tokens from one window to the next", .target = &text->stride, .low = 1,
         .high = 1 << 30, .fallback = "the context: windows do not overlap"},
        {"max-tokens", OPTION_COUNT, NULL, "tokens to predict (0: all)", .target = &text->max_tokens, .low = 0,
         .high = 1e15},
        {"positions", OPTION_FLAG, NULL, "show the loss by position in the context", .target = &settings.positions},
        {"plot", OPTION_PICTURE, NULL, "draw it (needs gnuplot)", .target = &settings.plot},
    };
    const command_option of_questions[] = {
        {"questions", OPTION_TEXT, "FILE", "JSON lines: HellaSwag, PIQA, or context, choices and answer",
         .target = &choices->questions},
        {"labels", OPTION_TEXT, "FILE", "of PIQA", .target = &choices->labels,
         .fallback = "the object's, or NAME-labels.lst beside it"},
        {"shots", OPTION_COUNT, "N", "questions with answers before each one", .target = &choices->shots, .low = 0,
         .high = 1e6},
        {"shots-from", OPTION_TEXT, "FILE", "where they are drawn from", .target = &choices->shot_questions,
         .fallback = "the same file"},
        {"seed", OPTION_SEED, NULL, "of the draw", .target = &choices->seed},
        {"max-questions", OPTION_COUNT, "N", "spread evenly over the file (0: all)", .target = &choices->max_questions,
         .low = 0, .high = 1e12},
    };
    command_option device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Options", both), OPTION_GROUP("A text", of_text),
                                   OPTION_GROUP("Multiple choice", of_questions),
                                   device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "eval",
        .synopsis = "--model DIR (--data PATH | --questions FILE) [options]",
        .summary =
            "Perplexity and bits per byte of a model on a text, or its accuracy in multiple choice.\n"
            "A text is read in windows of the context. The first tokens of a window have little context, so a longer\n"
            "one gives better figures, and so does a --stride below it: then a token counts once, in the first window\n"
            "that holds it. Questions are put as EleutherAI's lm-evaluation-harness puts them.",
        .examples = "  polysketch eval --model run --data tokens\n"
                    "  polysketch eval --model run --data other-book.txt --context 4k --stride 1k --json eval.json\n"
                    "  polysketch eval --model run --data tokens --positions --plot positions.png\n"
                    "  polysketch eval --model run --questions hellaswag/valid.jsonl --shots 5 --json hellaswag.json",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code) && (code = check_subject(&settings)) == EXIT_DONE)
        code = run(&settings);
    options_free(&line);
    return code;
}
