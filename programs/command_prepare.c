/* polysketch prepare: text files and folders -> token shards. */
#include "options.h"
#include "terminal.h"

#include <stdio.h>

static const char *const tokenizers[] = {"bytes", NULL};

static void print_result(const psk_prepare_options *options, const psk_prepare_result *result, double seconds) {
    char documents[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY], train[FORMAT_CAPACITY], valid[FORMAT_CAPACITY],
        time[FORMAT_CAPACITY];
    printf("%s document%s, %s -> %s train tokens, %s valid tokens in %lld shard%s (%s)\n",
           format_count(documents, (double)result->documents), result->documents == 1 ? "" : "s",
           format_bytes(bytes, result->bytes), format_count(train, (double)result->train_tokens),
           format_count(valid, (double)result->valid_tokens), (long long)result->shards, result->shards == 1 ? "" : "s",
           format_time_short(time, seconds));
    printf("next: polysketch train --data %s --output run\n", options->output);
}

exit_code command_prepare(int argc, char **argv) {
    psk_prepare_options options = psk_prepare_options_default();
    int tokenizer = 0;
    const command_option table[] = {
        {"output", OPTION_TEXT, "DIR", "folder for the shards", &options.output, .required = true},
        {"tokenizer", OPTION_CHOICE, NULL, "how text becomes tokens", &tokenizer, .names = tokenizers},
        {"valid", OPTION_REAL, NULL, "part of every document, at its end, that is held out", &options.valid_fraction,
         .low = 0, .high = 0.99},
        {"shard-tokens", OPTION_COUNT, NULL, "tokens a shard", &options.shard_tokens, .low = 1, .high = 1e12},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "prepare",
        .synopsis = "INPUT... --output DIR [options]",
        .summary = "Text files, and folders of .txt files, become token shards. Each file is one document.",
        .examples = "  polysketch prepare book.txt --output tokens\n"
                    "  polysketch prepare novels/ letters.txt --output tokens --valid 0.05",
        .groups = groups,
        .group_count = 1,
        .operand = "INPUT (text files or folders)",
        .operand_least = 1,
        .operand_most = SIZE_MAX,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code)) {
        progress_meter meter = {.verb = "preparing", .unit = "bytes", .line = progress_start()};
        psk_prepare_result result;
        options.inputs = line.operands;
        options.input_count = (int64_t)line.operand_count;
        options.tokenizer = tokenizers[tokenizer];
        options.progress = meter_progress;
        options.user = &meter;
        stop_on_signals();
        const double start = seconds_now();
        code = say_status("prepare", psk_prepare(&options, &result));
        progress_end(&meter.line);
        if (code == EXIT_DONE)
            print_result(&options, &result, seconds_now() - start);
    }
    options_free(&line);
    return code;
}
