/* Reading and writing of `polysketch generate`. */
#include "generate.h"

#include "terminal.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tokens read between two looks at Ctrl-C and the clock; a multiple of the library's chunk, so that a prompt is cut
 * where one call would cut it. */
#define PIECE    4096
#define PATIENCE 1.0 /* seconds without a line of progress */

/* ------------------------------------------------------------------------------------------------------ open, close
 */

static psk_status open_objects(generation *g, const char *folder) {
    const generate_settings *const settings = g->settings;
    psk_status status = device_options_create(&settings->device, &g->device);
    if (status == PSK_OK)
        status = psk_model_load(g->device, folder, &g->model);
    if (status == PSK_OK)
        status = psk_tokenizer_load(folder, &g->tokenizer);
    if (status == PSK_OK) {
        g->V = psk_model_get_config(g->model)->vocab_size;
        status = psk_tokenizer_check(g->tokenizer, g->V);
    }
    if (status == PSK_OK)
        status = psk_sampling_check(&g->sampling, g->V);
    if (status == PSK_OK)
        status = psk_text_stream_create(settings->stops.values, settings->stops.count, &g->stream);
    if (status == PSK_OK)
        status = settings->state_in ? psk_session_load(g->model, settings->state_in, &g->session)
                                    : psk_session_create(g->model, &g->session);
    return status;
}

bool generation_open(generation *g, const generate_settings *settings, exit_code *code) {
    char path[PATH_CAPACITY];
    *g = (generation){.settings = settings, .terminal = isatty(STDOUT_FILENO) != 0};
    *code = EXIT_USAGE;
    if (!sampling_options_take(&settings->sampling, g->biases, &g->sampling))
        return false;
    *code = EXIT_FAILED;
    const char *const folder = find_model("generate", settings->model, path);
    if (!folder)
        return false;
    *code = say_status("generate", open_objects(g, folder));
    if (*code != EXIT_DONE)
        return false;
    g->logits = malloc((size_t)g->V * sizeof *g->logits);
    g->logprobs = settings->logprobs ? fopen(settings->logprobs, "w") : NULL;
    if (g->logits && (g->logprobs || !settings->logprobs))
        return true;
    *code = EXIT_FAILED;
    if (g->logits)
        say_error("generate", "cannot write %s: %s", settings->logprobs, strerror(errno));
    else
        say_error("generate", "out of memory");
    return false;
}

void generation_close(generation *g) {
    if (g->logprobs)
        fclose(g->logprobs);
    free(g->logits);
    free(g->history);
    psk_text_stream_free(g->stream);
    psk_session_free(g->session);
    psk_tokenizer_free(g->tokenizer);
    psk_model_free(g->model);
    psk_device_free(g->device);
}

exit_code generation_load_state(generation *g, const char *path) {
    psk_session *session;
    const psk_status status = psk_session_load(g->model, path, &session);
    if (status != PSK_OK)
        return say_status("generate", status);
    psk_session_free(g->session);
    g->session = session;
    g->has_logits = false;
    g->history_count = 0;
    return EXIT_DONE;
}

void generation_reset(generation *g) {
    psk_session_reset(g->session);
    g->has_logits = false;
    g->history_count = 0;
}

/* ------------------------------------------------------------------------------------------------------------ output
 */

/* Bytes of the character at text that a terminal would obey instead of showing it: controls of ASCII other than tab and
 * line end, and those of Latin-1 as UTF-8 writes them. 0: it is none. */
static size_t control_size(const char *text, size_t size) {
    const unsigned char *const c = (const unsigned char *)text;
    if (c[0] == 0x7F || (c[0] < 0x20 && c[0] != '\n' && c[0] != '\t'))
        return 1;
    return size > 1 && c[0] == 0xC2 && c[1] < 0xA0 ? 2 : 0;
}

static exit_code put_text(const generation *g, const char *text, size_t size) {
    for (size_t i = 0, skipped; i < size; i += skipped ? skipped : 1) {
        skipped = g->terminal ? control_size(text + i, size - i) : 0;
        if (skipped == 0)
            putchar(text[i]);
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_DONE;
    say_error("generate", "cannot write the text: %s", strerror(errno));
    return EXIT_FAILED;
}

exit_code generation_show(generation *g, const char *text, size_t size) {
    psk_text_stream *plain;
    const char *shown;
    size_t shown_size;
    int stopped;
    psk_status status = psk_text_stream_create(NULL, 0, &plain);
    if (status == PSK_OK)
        status = psk_text_stream_push(plain, text, size, &shown, &shown_size, &stopped);
    exit_code code = status == PSK_OK ? put_text(g, shown, shown_size) : say_status("generate", status);
    if (code == EXIT_DONE) {
        status = psk_text_stream_finish(plain, &shown, &shown_size);
        code = status == PSK_OK ? put_text(g, shown, shown_size) : say_status("generate", status);
    }
    psk_text_stream_free(plain);
    return code;
}

/* "60 tokens (5.89 k/s)" */
static const char *format_speed(char text[64], int64_t tokens, double seconds) {
    char rate[FORMAT_CAPACITY];
    snprintf(text, 64, "%lld tokens (%s/s)", (long long)tokens,
             format_count(rate, tokens > 0 && seconds > 0 ? (double)tokens / seconds : 0));
    return text;
}

void generation_say_state(const generation *g) {
    char state[FORMAT_CAPACITY];
    fprintf(stderr, "context: %lld tokens, state: %s\n", (long long)psk_session_length(g->session),
            format_bytes(state, psk_session_bytes(g->session)));
}

void generation_say_speed(const generation *g) {
    char speed[64];
    if (g->read_tokens > 0)
        fprintf(stderr, "prompt: %s; ", format_speed(speed, g->read_tokens, g->read_seconds));
    if (g->written > 0)
        fprintf(stderr, "text: %s; ", format_speed(speed, g->written, g->seconds));
    generation_say_state(g);
}

/* -------------------------------------------------------------------------------------------------- log-probabilities
 */

/* Bytes of a token; none for those past the tokenizer's, which a model with a rounded vocab_size has. */
static psk_status token_text(const generation *g, int32_t token, const char **text, size_t *size) {
    *text = "";
    *size = 0;
    if (token >= psk_tokenizer_vocab_size(g->tokenizer))
        return PSK_OK;
    return psk_tokenizer_token_text(g->tokenizer, token, text, size);
}

/* A line of --logprobs: how likely `token` was by these logits. text is null where it is not UTF-8 on its own. */
static psk_status write_logprob(const generation *g, const char *part, const float *logits, int32_t token) {
    float logprob;
    const char *text;
    size_t size;
    psk_status status = psk_log_probabilities(g->V, logits, token, 0, &logprob, NULL, NULL);
    if (status == PSK_OK)
        status = token_text(g, token, &text, &size);
    if (status != PSK_OK)
        return status;
    json_t *const string = json_stringn(text, size);
    json_t *const line = json_pack("{s:s, s:i, s:o, s:f}", "part", part, "token", (int)token, "text",
                                   string ? string : json_null(), "logprob", (double)logprob);
    json_dumpf(line, g->logprobs, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', g->logprobs);
    json_decref(line);
    return PSK_OK;
}

/* Tokens of a prompt while their log-probabilities are written. */
typedef struct scored_tokens {
    generation *g;
    const int32_t *tokens;
    int64_t first, count; /* of this piece; of all */
    psk_status status;
} scored_tokens;

static int score_next(void *user, int64_t index, const float *logits) {
    scored_tokens *const scored = user;
    const int64_t next = scored->first + index + 1;
    if (next < scored->count)
        scored->status = write_logprob(scored->g, "prompt", logits, scored->tokens[next]);
    else
        memcpy(scored->g->logits, logits, (size_t)scored->g->V * sizeof *logits);
    return scored->status != PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- read
 */

/* Room for more tokens in the history. */
static bool reserve_history(generation *g, int64_t more) {
    int64_t capacity = g->history_capacity ? g->history_capacity : 1024;
    while (capacity < g->history_count + more)
        capacity *= 2;
    if (capacity == g->history_capacity)
        return true;
    int32_t *const larger = realloc(g->history, (size_t)capacity * sizeof *larger);
    if (!larger) {
        say_error("generate", "out of memory");
        return false;
    }
    g->history = larger;
    g->history_capacity = capacity;
    return true;
}

static psk_status read_piece(generation *g, const int32_t *tokens, int64_t first, int64_t count, int64_t all) {
    const int64_t last = first + count;
    if (!g->logprobs)
        return psk_session_append(g->session, tokens + first, count, last == all ? g->logits : NULL);
    scored_tokens scored = {.g = g, .tokens = tokens, .first = first, .count = all};
    if (first == 0 && g->has_logits)
        scored.status = write_logprob(g, "prompt", g->logits, tokens[0]);
    if (scored.status != PSK_OK)
        return scored.status;
    const psk_status status = psk_session_append_each(g->session, tokens + first, count, score_next, &scored);
    return scored.status != PSK_OK ? scored.status : status;
}

static exit_code read_tokens(generation *g, const int32_t *tokens, int64_t count) {
    progress_meter meter = {.verb = "reading", .unit = "tokens", .line = progress_start()};
    psk_status status = PSK_OK;
    int64_t done = 0;
    if (!reserve_history(g, count))
        return EXIT_FAILED;
    while (done < count && status == PSK_OK && !stop_requested()) {
        const int64_t piece = count - done < PIECE ? count - done : PIECE;
        status = read_piece(g, tokens, done, piece, count);
        if (status != PSK_OK)
            break;
        memcpy(g->history + g->history_count, tokens + done, (size_t)piece * sizeof *tokens);
        g->history_count += piece;
        done += piece;
        if (seconds_now() - meter.line.started > PATIENCE)
            meter_progress(&meter, done, count);
    }
    progress_end(&meter.line);
    g->has_logits = status == PSK_OK && done == count;
    g->read_tokens = done;
    g->read_seconds = seconds_now() - meter.line.started;
    return say_status("generate", status);
}

exit_code generation_read(generation *g, const char *text, size_t size) {
    int32_t *tokens;
    int64_t count;
    const psk_status status = psk_tokenizer_encode(g->tokenizer, text, size, &tokens, &count);
    if (status != PSK_OK)
        return say_status("generate", status);
    const exit_code code = read_tokens(g, tokens, count);
    psk_buffer_free(tokens);
    return code;
}

exit_code generation_read_end_of_text(generation *g) {
    const int32_t token = psk_tokenizer_end_of_text(g->tokenizer);
    if (token >= 0)
        return read_tokens(g, &token, 1);
    say_error("generate", "the prompt is empty, and this model has no end-of-text to begin with: give it some text");
    return EXIT_USAGE;
}

/* ------------------------------------------------------------------------------------------------------------- write
 */

/* The next token; *text, *size: what of it can be shown; *ended: it is the last. */
static psk_status write_token(generation *g, int32_t *token, const char **text, size_t *size, int *ended) {
    psk_status status = psk_sample(&g->sampling, g->V, g->logits, g->history, g->history_count, g->drawn, token);
    const char *bytes;
    size_t byte_count;
    *size = 0;
    if (status == PSK_OK && g->logprobs)
        status = write_logprob(g, "text", g->logits, *token);
    if (status == PSK_OK)
        status = token_text(g, *token, &bytes, &byte_count);
    if (status == PSK_OK)
        status = psk_text_stream_push(g->stream, bytes, byte_count, text, size, ended);
    if (status != PSK_OK)
        return status;
    *ended = *ended || *token == psk_tokenizer_end_of_text(g->tokenizer);
    g->history[g->history_count++] = *token;
    g->drawn++;
    return PSK_OK;
}

static exit_code write_tokens(generation *g, bool keep) {
    const int64_t most = g->settings->max_tokens;
    exit_code code = EXIT_DONE;
    int ended = 0;
    while (code == EXIT_DONE && !ended && g->written < most && !stop_requested()) {
        const char *text;
        size_t size;
        int32_t token;
        if (!reserve_history(g, 1))
            return EXIT_FAILED;
        psk_status status = write_token(g, &token, &text, &size, &ended);
        if (status == PSK_OK) {
            g->written++;
            code = put_text(g, text, size);
            if (keep || (!ended && g->written < most))
                status = psk_session_append(g->session, &token, 1, g->logits);
        }
        if (status != PSK_OK)
            code = say_status("generate", status);
    }
    return code;
}

exit_code generation_write(generation *g, bool keep) {
    const double start = seconds_now();
    const char *text = "";
    size_t size = 0;
    g->written = 0;
    const exit_code code = write_tokens(g, keep);
    g->seconds = seconds_now() - start;
    const psk_status status = psk_text_stream_finish(g->stream, &text, &size);
    if (code != EXIT_DONE)
        return code;
    if (status != PSK_OK)
        return say_status("generate", status);
    const exit_code end = put_text(g, text, size);
    return end == EXIT_DONE ? put_text(g, "\n", 1) : end;
}
