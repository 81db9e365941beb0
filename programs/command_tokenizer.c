/* polysketch tokenizer: text to tokens and back, what a vocabulary has, a new one. */
#include "options.h"
#include "streams.h"
#include "subjects.h"
#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LEAST_SECONDS 0.5 /* of --time */
#define MOST_ROUNDS   1000

static exit_code load(const char *command, const char *path, psk_tokenizer **tokenizer) {
    return say_status(command, psk_tokenizer_load(path, tokenizer));
}

/* -------------------------------------------------------------------------------------------------------------- info
 */

/* A byte of text in quotes; `plain`: those above ASCII too are parts of characters. */
static void put_visible(unsigned char byte, bool plain) {
    if (byte == '\n')
        fputs("\\n", stdout);
    else if (byte == '\t')
        fputs("\\t", stdout);
    else if (byte == '\\' || byte == '"')
        printf("\\%c", byte);
    else if (byte < ' ' || byte == 0x7F || (byte > 0x7F && !plain))
        printf("\\x%02X", (unsigned int)byte);
    else
        putchar(byte);
}

/* Whether the bytes are whole characters: a stream of text gives just them back. */
static psk_status is_utf8(psk_text_stream *stream, const char *text, size_t size, bool *whole) {
    const char *out;
    size_t out_size, rest_size;
    int stopped;
    const psk_status status = psk_text_stream_push(stream, text, size, &out, &out_size, &stopped);
    if (status != PSK_OK)
        return status;
    *whole = out_size == size && memcmp(out, text, size) == 0;
    return psk_text_stream_finish(stream, &out, &rest_size);
}

static psk_status list_tokens(const psk_tokenizer *tokenizer) {
    psk_text_stream *stream;
    psk_status status = psk_text_stream_create(NULL, 0, &stream);
    for (int64_t id = 0; status == PSK_OK && id < psk_tokenizer_vocab_size(tokenizer); id++) {
        const char *text;
        size_t size;
        bool whole = false;
        status = psk_tokenizer_token_text(tokenizer, (int32_t)id, &text, &size);
        if (status == PSK_OK)
            status = is_utf8(stream, text, size, &whole);
        printf("%lld \"", (long long)id);
        for (size_t i = 0; status == PSK_OK && i < size; i++)
            put_visible((unsigned char)text[i], whole);
        puts("\"");
    }
    psk_text_stream_free(stream);
    return status;
}

static void print_info(const psk_tokenizer *tokenizer) {
    const int32_t end = psk_tokenizer_end_of_text(tokenizer);
    size_t longest = 0, bytes = 0;
    int64_t silent = 0, longest_id = 0;
    for (int64_t id = 0; id < psk_tokenizer_vocab_size(tokenizer); id++) {
        const char *text;
        size_t size = 0;
        if (psk_tokenizer_token_text(tokenizer, (int32_t)id, &text, &size) == PSK_OK && size > longest) {
            longest = size;
            longest_id = id;
        }
        bytes += size;
        silent += size == 0;
    }
    printf("name          %s\n", psk_tokenizer_name(tokenizer));
    printf("vocab_size    %lld\n", (long long)psk_tokenizer_vocab_size(tokenizer));
    if (end >= 0)
        printf("end_of_text   %ld\n", (long)end);
    else
        printf("end_of_text   none: not for prepare, which puts it between documents\n");
    printf("without text  %lld\n", (long long)silent);
    printf("token texts   %.2f bytes on average, at most %zu (token %lld)\n",
           (double)bytes / (double)psk_tokenizer_vocab_size(tokenizer), longest, (long long)longest_id);
}

static exit_code tokenizer_info(int argc, char **argv) {
    int list = 0;
    const command_option table[] = {
        {"list", OPTION_FLAG, NULL, "every token with its text, in place of all else", .target = &list}};
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "tokenizer info",
        .synopsis = "TOKENIZER [--list]",
        .summary = "What a tokenizer is: \"bytes\", or a folder or file of GPT-2's kind or of SentencePiece's.",
        .examples = "  polysketch tokenizer info bytes\n"
                    "  polysketch tokenizer info run/best --list",
        .groups = groups,
        .group_count = 1,
        .operand = "TOKENIZER",
        .operand_least = 1,
        .operand_most = 1,
    };
    command_line line = {0};
    exit_code code;
    psk_tokenizer *tokenizer = NULL;
    if (options_read(&usage, argc, argv, &line, &code) &&
        (code = load(usage.command, line.operands[0], &tokenizer)) == EXIT_DONE) {
        if (!list)
            print_info(tokenizer);
        code = list ? say_status(usage.command, list_tokens(tokenizer)) : EXIT_DONE;
    }
    psk_tokenizer_free(tokenizer);
    options_free(&line);
    return code;
}

/* ------------------------------------------------------------------------------------------------------------ encode
 */

static int compare_seconds(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of this process, which has one thread here: other work on the machine does not count. */
static double processor_seconds(void) {
    return (double)clock() / CLOCKS_PER_SEC;
}

/* In MB/s; 0: the time is too short to be told. */
static double rate(size_t bytes, double seconds) {
    return seconds > 0 ? (double)bytes / 1e6 / seconds : 0;
}

/* Encodes again and again. */
static exit_code print_speed(const char *command, const psk_tokenizer *tokenizer, const char *text, size_t size) {
    double seconds[MOST_ROUNDS], sum = 0;
    int rounds = 0;
    int64_t count = 0;
    while (rounds < MOST_ROUNDS && (rounds < 5 || sum < LEAST_SECONDS)) {
        int32_t *tokens;
        const double start = processor_seconds();
        const psk_status status = psk_tokenizer_encode(tokenizer, text, size, &tokens, &count);
        seconds[rounds] = processor_seconds() - start;
        psk_buffer_free(tokens);
        if (status != PSK_OK)
            return say_status(command, status);
        sum += seconds[rounds++];
    }
    const double first = seconds[0];
    qsort(seconds, (size_t)rounds, sizeof seconds[0], compare_seconds);
    printf(
        "%zu bytes, %lld tokens, %.3f bytes a token; by processor time %.1f MB/s at first, %.1f at best, %.1f at the "
        "median of %d\n",
        size, (long long)count, count ? (double)size / (double)count : 0, rate(size, first), rate(size, seconds[0]),
        rate(size, seconds[rounds / 2]), rounds);
    return EXIT_DONE;
}

static exit_code print_tokens(const char *command, const psk_tokenizer *tokenizer, const char *text, size_t size) {
    int32_t *tokens;
    int64_t count;
    const psk_status status = psk_tokenizer_encode(tokenizer, text, size, &tokens, &count);
    if (status != PSK_OK)
        return say_status(command, status);
    for (int64_t i = 0; i < count; i++)
        printf("%s%ld", i ? " " : "", (long)tokens[i]);
    putchar('\n');
    psk_buffer_free(tokens);
    return EXIT_DONE;
}

static exit_code tokenizer_encode(int argc, char **argv) {
    const char *path = NULL, *given = NULL;
    int timed = 0;
    const command_option table[] = {
        {"tokenizer", OPTION_TEXT, "NAME|PATH", "\"bytes\", or a folder or file of GPT-2's kind or SentencePiece's",
         .target = &path, .required = true},
        {"text", OPTION_TEXT, "TEXT", "the text, in place of FILE", .target = &given},
        {"time", OPTION_FLAG, NULL, "how fast it goes on one core, in place of the tokens", .target = &timed},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "tokenizer encode",
        .synopsis = "--tokenizer NAME|PATH [FILE | --text TEXT] [options]",
        .summary = "The tokens of a text, as numbers in one line. Without FILE and --text standard input is read.",
        .examples = "  polysketch tokenizer encode --tokenizer bytes --text 'It was'\n"
                    "  polysketch tokenizer encode --tokenizer run/best book.txt --time",
        .groups = groups,
        .group_count = 1,
        .operand = "FILE",
        .operand_least = 0,
        .operand_most = 1,
    };
    command_line line = {0};
    exit_code code;
    psk_tokenizer *tokenizer = NULL;
    if (options_read(&usage, argc, argv, &line, &code) && (code = load(usage.command, path, &tokenizer)) == EXIT_DONE) {
        size_t size = given ? strlen(given) : 0;
        char *const read =
            given ? NULL : read_stream(usage.command, line.operand_count ? line.operands[0] : "-", &size);
        const char *const text = given ? given : read;
        code = !text   ? EXIT_FAILED
               : timed ? print_speed(usage.command, tokenizer, text, size)
                       : print_tokens(usage.command, tokenizer, text, size);
        free(read);
    }
    psk_tokenizer_free(tokenizer);
    options_free(&line);
    return code;
}

/* ------------------------------------------------------------------------------------------------------------ decode
 */

/* Numbers in `text`, which ends with a 0 byte, appended to tokens, which has room for them. False: what is none was
 * said. */
static bool read_numbers(const char *command, const char *text, int32_t *tokens, int64_t *count) {
    for (;;) {
        char *end;
        text += strspn(text, " \t\r\n,[]");
        if (!*text)
            return true;
        errno = 0;
        const long number = strtol(text, &end, 10);
        if (end == text || errno != 0 || number < 0 || number > INT32_MAX) {
            say_error(command, "'%.*s' is no token: a number from 0 on is expected", (int)strcspn(text, " \t\r\n,"),
                      text);
            return false;
        }
        tokens[(*count)++] = (int32_t)number;
        text = end;
    }
}

/* From the operands, or else from standard input; to be freed. NULL: what is wrong was said. */
static int32_t *read_tokens(const char *command, const command_line *line, int64_t *count) {
    size_t size = 0;
    char *input = NULL;
    if (line->operand_count == 0 && !(input = read_stream(command, "-", &size)))
        return NULL;
    for (size_t i = 0; i < line->operand_count; i++)
        size += strlen(line->operands[i]);
    int32_t *const tokens = malloc((size + 1) * sizeof *tokens); /* no more numbers than characters */
    char *const text = malloc(size + 1);
    bool good = tokens && text;
    *count = 0;
    if (!good)
        say_error(command, "out of memory");
    if (good && input) {
        memcpy(text, input, size);
        text[size] = 0;
        good = read_numbers(command, text, tokens, count);
    }
    for (size_t i = 0; good && i < line->operand_count; i++)
        good = read_numbers(command, line->operands[i], tokens, count);
    free(text);
    free(input);
    if (good)
        return tokens;
    free(tokens);
    return NULL;
}

static exit_code print_text(const char *command, const psk_tokenizer *tokenizer, const int32_t *tokens, int64_t count) {
    char *text;
    size_t size;
    const psk_status status = psk_tokenizer_decode(tokenizer, tokens, count, &text, &size);
    if (status != PSK_OK)
        return say_status(command, status);
    fwrite(text, 1, size, stdout);
    psk_buffer_free(text);
    return EXIT_DONE;
}

static exit_code tokenizer_decode(int argc, char **argv) {
    const char *path = NULL;
    const command_option table[] = {
        {"tokenizer", OPTION_TEXT, "NAME|PATH", "\"bytes\", or a folder or file of GPT-2's kind or SentencePiece's",
         .target = &path, .required = true},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "tokenizer decode",
        .synopsis = "--tokenizer NAME|PATH [TOKEN...]",
        .summary =
            "The text of tokens, byte for byte, without a line end after it. The numbers are given, or read from\n"
            "standard input, with spaces, commas or line ends between them.",
        .examples = "  polysketch tokenizer decode --tokenizer bytes 73 116\n"
                    "  polysketch tokenizer decode --tokenizer run/best < numbers.txt > text.txt",
        .groups = groups,
        .group_count = 1,
        .operand = "TOKEN",
        .operand_least = 0,
        .operand_most = SIZE_MAX,
    };
    command_line line = {0};
    exit_code code;
    psk_tokenizer *tokenizer = NULL;
    if (options_read(&usage, argc, argv, &line, &code) && (code = load(usage.command, path, &tokenizer)) == EXIT_DONE) {
        int64_t count;
        int32_t *const tokens = read_tokens(usage.command, &line, &count);
        code = tokens ? print_text(usage.command, tokenizer, tokens, count) : EXIT_USAGE;
        free(tokens);
    }
    psk_tokenizer_free(tokenizer);
    options_free(&line);
    return code;
}

/* ------------------------------------------------------------------------------------------------------------- train
 */

/* SentencePiece cannot be stopped, but nothing is written before it is done: until then a signal ends the program. */
static int on_merging(void *user, int made) {
    static const char *const note[] = {"all is read; making the merges, of which no progress is told"};
    if (made) {
        stop_on_signals();
        return 0;
    }
    end_on_signals();
    progress_show(&((progress_meter *)user)->line, note, 1);
    return stop_requested();
}

static exit_code train(const psk_tokenizer_train_options *options) {
    static const char command[] = "tokenizer train";
    char took[FORMAT_CAPACITY], output[QUOTED_CAPACITY];
    psk_tokenizer *tokenizer;
    const double start = seconds_now();
    const psk_status status = psk_tokenizer_train(options);
    progress_end(&((progress_meter *)options->user)->line);
    if (status != PSK_OK)
        return say_status(command, status);
    const exit_code code = load(command, options->output, &tokenizer);
    if (code != EXIT_DONE)
        return code;
    printf("%s, %lld tokens, in %s (%s)\n", psk_tokenizer_name(tokenizer),
           (long long)psk_tokenizer_vocab_size(tokenizer), options->output,
           format_duration(took, seconds_now() - start));
    printf("next: polysketch prepare TEXT --tokenizer %s --output tokens\n", format_quoted(output, options->output));
    psk_tokenizer_free(tokenizer);
    return EXIT_DONE;
}

static exit_code tokenizer_train(int argc, char **argv) {
    psk_tokenizer_train_options options = psk_tokenizer_train_options_default();
    const char *formats[8] = {NULL};
    int format = 0;
    for (int i = 0; i < 7; i++) /* the last stays NULL */
        formats[i] = psk_text_format_name((psk_text_format)i);
    const command_option table[] = {
        {"output", OPTION_TEXT, "DIR", "folder for tokenizer.model and tokenizer.json; none of a model or of data",
         .target = &options.output, .required = true},
        {"vocab-size", OPTION_COUNT, "N",
         "tokens: 258 for bytes and signs, one a character of the text, the others for merges",
         .target = &options.vocab_size, .low = 258, .high = 1e6},
        {"max-bytes", OPTION_COUNT, "N", "as much of the text, from its beginning, is looked at (0: all)",
         .target = &options.max_bytes, .low = 0, .high = 1e12},
        {"format", OPTION_CHOICE, NULL, "as for prepare", .target = &format, .names = formats},
        {"field", OPTION_TEXT, "NAME", "of JSON lines: holds the text", .target = &options.field},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "tokenizer train",
        .synopsis = "INPUT... --output DIR [options]",
        .summary = "A new vocabulary for byte-pair encoding, made of a text by SentencePiece's trainer. Inputs are\n"
                   "those of prepare. The text looked at is held in memory, several times its size.",
        .examples = "  polysketch tokenizer train novels/ --vocab-size 4096 --output tokenizer\n"
                    "  polysketch prepare novels/ --tokenizer tokenizer --output tokens",
        .groups = groups,
        .group_count = 1,
        .operand = "INPUT (text files or folders)",
        .operand_least = 1,
        .operand_most = SIZE_MAX,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code)) {
        progress_meter meter = {.verb = "reading", .unit = "bytes", .line = progress_start()};
        options.inputs = line.operands;
        options.input_count = (int64_t)line.operand_count;
        options.format = (psk_text_format)format;
        options.progress = meter_progress;
        options.merging = on_merging;
        options.user = &meter;
        stop_on_signals();
        code = train(&options);
    }
    options_free(&line);
    return code;
}

/* ----------------------------------------------------------------------------------------------------------- command
 */

static const subject subjects[] = {
    {"info", tokenizer_info, "what a tokenizer is, and its tokens"},
    {"encode", tokenizer_encode, "text -> tokens"},
    {"decode", tokenizer_decode, "tokens -> text"},
    {"train", tokenizer_train, "text -> a new vocabulary"},
};

exit_code command_tokenizer(int argc, char **argv) {
    return run_subject("tokenizer", "Text to tokens and back.", subjects, sizeof subjects / sizeof subjects[0], argc,
                       argv);
}
