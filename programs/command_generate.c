/* polysketch generate: a model and a prompt -> text, streamed. */
#include "model_options.h"
#include "terminal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define END_OF_TEXT 256 /* of the tokenizer "bytes" (polysketch.h, psk_prepare_options) */

typedef struct generate_settings {
    const char *model, *prompt, *prompt_file;
    int64_t max_tokens, top_k;
    double temperature, top_p;
    uint64_t seed;
    int echo;
    device_options device;
} generate_settings;

typedef struct generation {
    const generate_settings *settings;
    psk_model *model;
    psk_session *session;
    float *logits;
    psk_text_stream *stream;
    bool terminal;
    int64_t prompt_tokens, tokens; /* read, written */
    double prompt_seconds, seconds;
} generation;

/* ----------------------------------------------------------------------------------------------------------- prompt
 */

static char *read_stream(FILE *file, size_t *size) {
    size_t capacity = 0;
    char *text = NULL;
    *size = 0;
    do {
        if (*size == capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *const larger = realloc(text, capacity);
            if (!larger) {
                free(text);
                errno = ENOMEM;
                return NULL;
            }
            text = larger;
        }
        *size += fread(text + *size, 1, capacity - *size, file);
    } while (*size == capacity);
    if (!ferror(file))
        return text;
    free(text);
    return NULL;
}

/* The prompt's bytes, to be freed; from --prompt, --prompt-file or standard input. NULL with an error said. */
static char *read_prompt(const generate_settings *settings, size_t *size) {
    if (settings->prompt) {
        *size = strlen(settings->prompt);
        char *const copy = malloc(*size + 1);
        if (copy)
            memcpy(copy, settings->prompt, *size + 1);
        else
            say_error("generate", "out of memory");
        return copy;
    }
    const char *const path = settings->prompt_file;
    FILE *const file = path ? fopen(path, "rb") : stdin;
    if (!path && isatty(STDIN_FILENO))
        fprintf(stderr, "type a prompt, then Ctrl-D on a line of its own (or give --prompt TEXT)\n");
    char *const text = file ? read_stream(file, size) : NULL;
    if (!text)
        say_error("generate", "cannot read %s: %s", path ? path : "standard input", strerror(errno));
    if (path && file)
        fclose(file);
    return text;
}

/* Tokens of the prompt; an empty one becomes end-of-text, for that is what stands before every document. */
static int32_t *make_tokens(const char *text, size_t size, int64_t *count) {
    int32_t *const tokens = malloc((size + 1) * sizeof *tokens);
    if (!tokens) {
        say_error("generate", "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < size; i++)
        tokens[i] = (unsigned char)text[i];
    if (size == 0)
        tokens[0] = END_OF_TEXT;
    *count = size ? (int64_t)size : 1;
    return tokens;
}

/* ----------------------------------------------------------------------------------------------------------- output
 */

/* Bytes of the character at text that a terminal would obey instead of showing it: controls of ASCII other than tab and
 * line end, and those of Latin-1 as UTF-8 writes them. 0: it is none. */
static size_t control_size(const char *text, size_t size) {
    const unsigned char *const c = (const unsigned char *)text;
    if (c[0] == 0x7F || (c[0] < 0x20 && c[0] != '\n' && c[0] != '\t'))
        return 1;
    return size > 1 && c[0] == 0xC2 && c[1] < 0xA0 ? 2 : 0;
}

static void put_text(const generation *g, const char *text, size_t size) {
    for (size_t i = 0, skipped; i < size; i += skipped ? skipped : 1) {
        skipped = g->terminal ? control_size(text + i, size - i) : 0;
        if (skipped == 0)
            putchar(text[i]);
    }
    fflush(stdout);
}

static psk_status put_bytes(generation *g, const char *bytes, size_t size) {
    const char *text;
    size_t text_size;
    int stopped;
    const psk_status status = psk_text_stream_push(g->stream, bytes, size, &text, &text_size, &stopped);
    if (status == PSK_OK)
        put_text(g, text, text_size);
    return status;
}

static psk_status read_tokens(generation *g, const int32_t *tokens, int64_t count) {
    const double start = seconds_now();
    const psk_status status = psk_session_append(g->session, tokens, count, g->logits);
    g->prompt_seconds = seconds_now() - start;
    g->prompt_tokens = count;
    return status;
}

/* Ends at max_tokens, at end-of-text (the one token without text), or at Ctrl-C. */
static psk_status write_tokens(generation *g) {
    const generate_settings *const settings = g->settings;
    const int64_t V = psk_model_get_config(g->model)->vocab_size;
    psk_sampling sampling = psk_sampling_default();
    sampling.temperature = (float)settings->temperature;
    sampling.top_k = settings->top_k;
    sampling.top_p = (float)settings->top_p;
    sampling.seed = settings->seed;
    const double start = seconds_now();
    psk_status status = PSK_OK;
    while (status == PSK_OK && g->tokens < settings->max_tokens && !stop_requested()) {
        int32_t token;
        char text[256];
        size_t size = 0;
        if ((status = psk_sample(&sampling, V, g->logits, NULL, 0, g->tokens, &token)) != PSK_OK ||
            (status = psk_token_text(g->model, token, text, sizeof text, &size)) != PSK_OK || size == 0)
            break;
        status = put_bytes(g, text, size);
        g->tokens++;
        if (status == PSK_OK && g->tokens < settings->max_tokens)
            status = psk_session_append(g->session, &token, 1, g->logits);
    }
    g->seconds = seconds_now() - start;
    return status;
}

static psk_status end_line(generation *g) {
    const char *text = "";
    size_t size = 0;
    const psk_status status = psk_text_stream_finish(g->stream, &text, &size);
    put_text(g, text, size);
    putchar('\n');
    return status;
}

static void print_speed(const generation *g) {
    char prompt[FORMAT_CAPACITY], written[FORMAT_CAPACITY], state[FORMAT_CAPACITY];
    fprintf(stderr, "prompt: %lld tokens, %s tokens/s; text: %lld tokens, %s tokens/s; state: %s\n",
            (long long)g->prompt_tokens, format_count(prompt, (double)g->prompt_tokens / g->prompt_seconds),
            (long long)g->tokens, format_count(written, g->tokens ? (double)g->tokens / g->seconds : 0),
            format_bytes(state, psk_session_bytes(g->session)));
}

static exit_code generate(generation *g, const char *prompt, size_t size) {
    int64_t count;
    int32_t *const tokens = make_tokens(prompt, size, &count);
    if (!tokens)
        return EXIT_FAILED;
    psk_status status = g->settings->echo ? put_bytes(g, prompt, size) : PSK_OK;
    if (status == PSK_OK)
        status = read_tokens(g, tokens, count);
    if (status == PSK_OK)
        status = write_tokens(g);
    free(tokens);
    const psk_status end = end_line(g);
    status = status == PSK_OK ? end : status;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        say_error("generate", "cannot write the text: %s", strerror(errno));
        return EXIT_FAILED;
    }
    if (status != PSK_OK)
        return say_status("generate", status);
    print_speed(g);
    if (stop_requested())
        say_error("generate", "stopped after %lld of %lld tokens", (long long)g->tokens,
                  (long long)g->settings->max_tokens);
    return stop_requested() ? EXIT_FAILED : EXIT_DONE;
}

static exit_code run(const generate_settings *settings, const char *prompt, size_t size) {
    generation g = {.settings = settings, .terminal = isatty(STDOUT_FILENO) != 0};
    psk_device *device = NULL;
    char path[PATH_CAPACITY];
    psk_status status = device_options_create(&settings->device, &device);
    if (status == PSK_OK)
        status = psk_model_load(device, model_folder(settings->model, path), &g.model);
    if (status == PSK_OK)
        status = psk_session_create(g.model, &g.session);
    if (status == PSK_OK)
        status = psk_text_stream_create(NULL, 0, &g.stream);
    exit_code code = say_status("generate", status);
    if (status == PSK_OK) {
        g.logits = malloc((size_t)psk_model_get_config(g.model)->vocab_size * sizeof *g.logits);
        if (!g.logits)
            say_error("generate", "out of memory");
        stop_on_signals();
        code = g.logits ? generate(&g, prompt, size) : EXIT_FAILED;
    }
    free(g.logits);
    psk_text_stream_free(g.stream);
    psk_session_free(g.session);
    psk_model_free(g.model);
    psk_device_free(device);
    return code;
}

exit_code command_generate(int argc, char **argv) {
    const psk_sampling sampling = psk_sampling_default();
    generate_settings settings = {.max_tokens = 256,
                                  .echo = 1,
                                  .top_k = sampling.top_k,
                                  .temperature = round((double)sampling.temperature * 1e6) / 1e6,
                                  .top_p = (double)sampling.top_p,
                                  .seed = sampling.seed,
                                  .device = device_options_default()};
    const command_option text[] = {
        {"model", OPTION_TEXT, "DIR", "a model folder or a run", .target = &settings.model, .required = true},
        {"prompt", OPTION_TEXT, "TEXT", "what the text begins with", .target = &settings.prompt},
        {"prompt-file", OPTION_TEXT, "FILE", "the same from a file; without either, standard input is read",
         .target = &settings.prompt_file},
        {"max-tokens", OPTION_COUNT, NULL, "tokens to write; end-of-text ends earlier", .target = &settings.max_tokens,
         .low = 0, .high = 1e12},
        {"echo", OPTION_FLAG, NULL, "leave the prompt out of the output", .target = &settings.echo},
    };
    const command_option choice[] = {
        {"temperature", OPTION_REAL, NULL, "below 1: safer, above: wilder; 0: always the likeliest token",
         .target = &settings.temperature, .low = 0, .high = 100},
        {"top-k", OPTION_COUNT, "N", "only the N likeliest (0: all)", .target = &settings.top_k, .low = 0, .high = 1e9},
        {"top-p", OPTION_REAL, NULL, "then only the likeliest that make up this part (1: all)",
         .target = &settings.top_p, .low = 1e-6, .high = 1},
        {"seed", OPTION_SEED, NULL, "the same seed gives the same text", .target = &settings.seed},
    };
    command_option device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Text", text),
                                   OPTION_GROUP("Choice of tokens, applied in this order", choice),
                                   device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "generate",
        .synopsis = "--model DIR [--prompt TEXT] [options]",
        .summary = "Continues a text. The text goes to standard output as it comes, the speed to standard error.",
        .examples = "  polysketch generate --model run --prompt 'It was' --max-tokens 500 --temperature 0.7\n"
                    "  polysketch generate --model run --no-echo < beginning.txt > rest.txt",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    const bool good = options_read(&usage, argc, argv, &line, &code);
    if (good && settings.prompt && settings.prompt_file) {
        say_error("generate", "--prompt and --prompt-file are both given: one of them, please");
        code = EXIT_USAGE;
    } else if (good) {
        size_t size = 0;
        char *const prompt = read_prompt(&settings, &size);
        code = prompt ? run(&settings, prompt, size) : EXIT_FAILED;
        free(prompt);
    }
    options_free(&line);
    return code;
}
