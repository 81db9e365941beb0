/* polysketch prepare: text -> token shards. */
#include "model_options.h"
#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MOST_VALID 0.99

typedef struct prepare_settings {
    psk_prepare_options options;
    const char *valid; /* a part, or a path */
    int format, split, check;
    int64_t threads;
} prepare_settings;

static void print_result(const psk_prepare_result *result, double seconds) {
    char documents[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY], train[FORMAT_CAPACITY], valid[FORMAT_CAPACITY],
        time[FORMAT_CAPACITY];
    printf("%s document%s, %s -> %s train tokens, %s valid tokens in %lld shard%s (%s)\n",
           format_count(documents, (double)result->documents), result->documents == 1 ? "" : "s",
           format_bytes(bytes, result->bytes), format_count(train, (double)result->train_tokens),
           format_count(valid, (double)result->valid_tokens), (long long)result->shards, result->shards == 1 ? "" : "s",
           format_time_short(time, seconds));
}

/* What was left out, which is no error and should not go unnoticed. */
static void print_warnings(const psk_prepare_result *result) {
    if (result->empty > 0)
        say_error("prepare", "warning: %lld empty document%s left out", (long long)result->empty,
                  result->empty == 1 ? " was" : "s were");
    if (result->skipped > 0)
        say_error("prepare", "warning: %lld bad line%s left out, the first: %s", (long long)result->skipped,
                  result->skipped == 1 ? " was" : "s were", result->first_skipped);
}

/* A command that works with what is there: small texts need a shorter context than train's own, and with nothing held
 * out it must not evaluate. */
static void print_next(const char *folder, const psk_prepare_result *result) {
    char quoted[QUOTED_CAPACITY];
    const char *const output = format_quoted(quoted, folder);
    const int64_t longest = result->train_tokens - 1;
    if (longest < 1) {
        printf("next: polysketch eval --model RUN --data %s\n", output);
        return;
    }
    printf("next: polysketch train --data %s --output run", output);
    if (longest < psk_train_options_default().context)
        printf(" --context %lld", (long long)longest);
    puts(result->valid_tokens > 0 ? "" : " --eval-every 0");
}

/* The first call says what an earlier run has done. */
static int prepare_progress(void *user, int64_t done, int64_t total) {
    progress_meter *const meter = user;
    if (meter->before < 0) {
        meter->before = done;
        if (done > 0)
            fprintf(stderr, "going on where an earlier run stopped\n");
    }
    return meter_progress(meter, done, total);
}

/* --valid: a number is a part of the text, anything else a path. */
static bool apply_valid(prepare_settings *settings) {
    char *end;
    struct stat facts;
    if (!settings->valid)
        return true;
    const double part = strtod(settings->valid, &end);
    if (end != settings->valid && !*end) {
        settings->options.valid_fraction = part;
        if (part >= 0 && part <= MOST_VALID)
            return true;
        say_error("prepare", "--valid: %s is outside 0 ... %g", settings->valid, MOST_VALID);
        return false;
    }
    settings->options.valid_inputs = &settings->valid;
    settings->options.valid_input_count = 1;
    if (stat(settings->valid, &facts) == 0)
        return true;
    say_error("prepare", "--valid: %s is neither a part (0 ... %g) nor a file or folder", settings->valid, MOST_VALID);
    return false;
}

/* After an error on the way the work before it is kept, which nobody would guess. */
static void print_kept(const psk_prepare_options *options, psk_status status) {
    char path[PATH_CAPACITY];
    const bool bad_line = status == PSK_ERROR_FORMAT && !options->skip_bad_lines;
    if (path_join(path, options->output, "prepare.json") && path_exists(path))
        say_error("prepare", "what was done is kept in %s: the same command goes on from there%s", options->output,
                  bad_line ? ", also with --skip-bad-lines" : "");
}

static exit_code prepare(prepare_settings *settings) {
    progress_meter meter = {.verb = "preparing", .unit = "bytes", .line = progress_start(), .before = -1};
    psk_prepare_result result;
    if (!settings->options.output) {
        say_error("prepare", "--output DIR is missing");
        return EXIT_USAGE;
    }
    if (!apply_valid(settings))
        return EXIT_USAGE;
    settings->options.progress = prepare_progress;
    settings->options.user = &meter;
    stop_on_signals();
    const double start = seconds_now();
    const psk_status status = psk_prepare(&settings->options, &result);
    progress_end(&meter.line);
    if (status == PSK_OK) {
        print_warnings(&result);
        print_result(&result, seconds_now() - start);
        print_next(settings->options.output, &result);
    }
    const exit_code code = say_status("prepare", status);
    if (code == EXIT_FAILED && status != PSK_ERROR_INTERRUPTED)
        print_kept(&settings->options, status);
    return code;
}

static exit_code check(const char *folder) {
    psk_prepare_result result;
    const double start = seconds_now();
    const psk_status status = psk_prepare_check(folder, &result);
    if (status == PSK_OK) {
        printf("%s is whole: ", folder);
        print_result(&result, seconds_now() - start);
    }
    return say_status("prepare", status);
}

static exit_code run(prepare_settings *settings, const command_line *line) {
    settings->options.inputs = line->operands;
    settings->options.input_count = (int64_t)line->operand_count;
    settings->options.format = (psk_text_format)settings->format;
    settings->options.split = (psk_split_rule)settings->split;
    settings->options.threads = (int)settings->threads;
    if (!settings->check)
        return prepare(settings);
    if (line->operand_count == 1)
        return check(line->operands[0]);
    say_error("prepare", "--check takes one folder");
    return EXIT_USAGE;
}

exit_code command_prepare(int argc, char **argv) {
    prepare_settings settings = {.options = psk_prepare_options_default()};
    psk_prepare_options *const options = &settings.options;
    const char *formats[8] = {NULL}, *splits[8] = {NULL};
    for (int i = 0; i < 7; i++) { /* the last stays NULL */
        formats[i] = psk_text_format_name((psk_text_format)i);
        splits[i] = psk_split_rule_name((psk_split_rule)i);
    }
    const command_option table[] = {
        {"output", OPTION_TEXT, "DIR", "folder for the shards", .target = &options->output},
        {"tokenizer", OPTION_TEXT, "NAME|PATH", "\"bytes\", or a folder or file of GPT-2's kind or SentencePiece's",
         .target = &options->tokenizer},
        {"format", OPTION_CHOICE, NULL,
         "auto: by name (.jsonl, .json), WikiText by its first line, else text; text: any bytes",
         .target = &settings.format, .names = formats},
        {"field", OPTION_TEXT, "NAME", "of JSON lines: holds the text", .target = &options->field},
        {"valid", OPTION_TEXT, "PART|PATH", "what is held out: a part of the text, or all of a file or folder",
         .target = &settings.valid, .fallback = "0.05"},
        {"split", OPTION_CHOICE, NULL, "that part: the tail of every document, or whole documents by their hash",
         .target = &settings.split, .names = splits},
        {"skip-bad-lines", OPTION_FLAG, NULL, "leave out JSON lines that cannot be used, and count them",
         .target = &options->skip_bad_lines},
        {"shard-tokens", OPTION_COUNT, NULL, "tokens a shard", .target = &options->shard_tokens, .low = 1,
         .high = 1e12},
        {"threads", OPTION_COUNT, NULL, "that encode", .target = &settings.threads, .low = 1, .high = 4096,
         .fallback = "all"},
        {"check", OPTION_FLAG, NULL, "verify the folder DIR, given as the only operand", .target = &settings.check},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "prepare",
        .synopsis = "INPUT... --output DIR [options]\n       polysketch prepare --check DIR",
        .summary =
            "Text becomes token shards. An INPUT is a file, a folder of them, or - for standard input; each may be\n"
            "compressed by gzip or zstd. A text file is one document, and so are a line of JSON lines and an\n"
            "article of WikiText. What was stopped goes on when the same command is given again.",
        .examples = "  polysketch prepare book.txt --output tokens\n"
                    "  polysketch prepare novels/ letters.txt.gz --output tokens --valid 0.02\n"
                    "  polysketch prepare novels/ --valid held-out/ --output tokens --tokenizer gpt2/\n"
                    "  polysketch prepare c4-train.*.json.gz --output tokens --split hash --valid 0.001\n"
                    "  zstd -dc pile.jsonl.zst | polysketch prepare - --format jsonl --output tokens\n"
                    "  polysketch prepare --check tokens",
        .groups = groups,
        .group_count = 1,
        .operand = "INPUT (text files or folders)",
        .operand_least = 1,
        .operand_most = SIZE_MAX,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = run(&settings, &line);
    options_free(&line);
    return code;
}
