#include "serve_sequence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool no_memory(serve_error *error) {
    return serve_fail(error, 503, NULL, NULL, "out of memory");
}

static bool check(psk_status status, serve_error *error) {
    return status == PSK_OK || serve_fail_status(error, status, NULL);
}

static bool wants_prompt_logprobs(const serve_job *job) {
    return job->request.echo && job->request.logprobs >= 0;
}

static int64_t count_characters(const char *text, size_t size) {
    int64_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

/* ----------------------------------------------------------------------------------------------------------- output
 */

/* Hands over text, the held tokens whose characters are shown, and the reason if this is the end. */
static bool put(serve_sequence *sequence, const char *text, size_t size, const char *finish, const serve_bytes *state,
                serve_error *error) {
    serve_tokens *const held = &sequence->held;
    int64_t ready = 0;
    while (ready < held->count && (held->tokens[ready].offset < sequence->shown || (finish && !sequence->stopped)))
        ready++;
    if (size == 0 && ready == 0 && !finish)
        return true;
    serve_piece *const piece = serve_piece_create(sequence->choice, text, size);
    if (!piece)
        return no_memory(error);
    piece->tokens.top = held->top;
    if (!serve_tokens_move(held, ready, &piece->tokens)) {
        serve_piece_free(piece);
        return no_memory(error);
    }
    piece->finish = finish;
    if (state)
        piece->state = *state;
    if (finish && sequence->session) {
        piece->session_tokens = psk_session_length(sequence->session);
        piece->session_bytes = psk_session_bytes(sequence->session);
    }
    serve_job_put(sequence->job, piece);
    return true;
}

/* Notes a token's log-probability and those of its rivals; logits NULL: there are none. */
static bool note_token(const serve_context *context, serve_sequence *sequence, int32_t token, const float *logits,
                       serve_error *error) {
    const int64_t V = psk_model_get_config(context->model)->vocab_size, top = sequence->held.top;
    int32_t top_tokens[SERVE_TOP_LOGPROBS];
    float top_logprobs[SERVE_TOP_LOGPROBS], logprob = NAN;
    if (logits && !check(psk_log_probabilities(V, logits, token, top, &logprob, top_tokens, top_logprobs), error))
        return false;
    serve_top *row;
    serve_token *const entry = serve_tokens_append(&sequence->held, &row);
    if (!entry)
        return no_memory(error);
    *entry = (serve_token){.token = token, .logprob = logprob, .offset = sequence->placed};
    for (int64_t i = 0; i < top; i++)
        row[i] = logits ? (serve_top){top_tokens[i], top_logprobs[i]} : (serve_top){0};
    return true;
}

/* Vocabularies of models may be padded: tokens that the tokenizer does not know have no text. */
static bool token_bytes(const serve_context *context, int32_t token, const char **bytes, size_t *count,
                        serve_error *error) {
    *bytes = "";
    *count = 0;
    return token >= psk_tokenizer_vocab_size(context->tokenizer) ||
           check(psk_tokenizer_token_text(context->tokenizer, token, bytes, count), error);
}

/* The token's bytes through the stream that never ends; *text is what came out. */
static bool place_token(const serve_context *context, serve_sequence *sequence, int32_t token, const char **text,
                        size_t *size, serve_error *error) {
    const char *bytes;
    size_t count;
    int stopped;
    if (!token_bytes(context, token, &bytes, &count, error) ||
        !check(psk_text_stream_push(sequence->plain, bytes, count, text, size, &stopped), error))
        return false;
    sequence->placed += count_characters(*text, *size);
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- prompt
 */

/* One token of the prompt as part of the completion's text. */
static bool echo_token(const serve_context *context, serve_sequence *sequence, int32_t token, const float *logits,
                       serve_error *error) {
    const char *text;
    size_t size;
    if (wants_prompt_logprobs(sequence->job) && !note_token(context, sequence, token, logits, error))
        return false;
    if (!place_token(context, sequence, token, &text, &size, error))
        return false;
    sequence->shown = sequence->placed;
    return put(sequence, text, size, NULL, NULL, error);
}

/* The end of the echo: the completion begins with streams that hold nothing. */
static bool end_echo(serve_sequence *sequence, serve_error *error) {
    const char *text;
    size_t size;
    if (!sequence->job->request.echo)
        return true;
    if (!check(psk_text_stream_finish(sequence->plain, &text, &size), error))
        return false;
    sequence->placed += count_characters(text, size);
    sequence->shown = sequence->placed;
    return put(sequence, text, size, NULL, NULL, error);
}

static bool echo_prompt(const serve_context *context, serve_sequence *sequence, serve_error *error) {
    for (int64_t i = 0; i < sequence->prompt_count; i++)
        if (!echo_token(context, sequence, sequence->tokens[i], NULL, error))
            return false;
    return true;
}

typedef struct prompt_reader {
    const serve_context *context;
    serve_sequence *sequence;
    serve_error *error;
} prompt_reader;

/* The logits after a token of the prompt are those of the token behind it. */
static int visit_logits(void *user, int64_t index, const float *logits) {
    const prompt_reader *const reader = user;
    const int64_t next = reader->sequence->read + index + 1;
    for (serve_sequence *s = reader->sequence; s; s = s->follower)
        if (!echo_token(reader->context, s, s->tokens[next], logits, reader->error))
            return 1;
    return 0;
}

/* The session has seen all of the prompt but its last token. */
static bool end_prompt(const serve_context *context, serve_sequence *first, serve_error *error) {
    serve_cache_release(context->cache, first->node);
    first->node = NULL;
    for (serve_sequence *s = first, *next; s; s = next) {
        next = s->follower;
        if (s != first && !check(psk_session_clone(first->session, &s->session), error))
            return false;
        s->read = first->read;
        s->follower = NULL;
        if (!end_echo(s, error) || (s->job->request.max_tokens == 0 && !serve_sequence_finish(s, "length", error)))
            return false;
    }
    return true;
}

bool serve_sequence_read(const serve_context *context, serve_sequence *sequence, int64_t *count, serve_error *error) {
    const int64_t before = psk_session_length(sequence->session) - sequence->read; /* tokens of a state */
    const int64_t end = sequence->prompt_count - 1;
    const int64_t cut = serve_cache_cut(context->cache, before + sequence->read, before + end) - before;
    const int32_t *const tokens = sequence->tokens + sequence->read;
    *count = cut - sequence->read;
    if (wants_prompt_logprobs(sequence->job)) {
        prompt_reader reader = {context, sequence, error};
        const psk_status status = psk_session_append_each(sequence->session, tokens, *count, visit_logits, &reader);
        if (status != PSK_OK)
            return serve_fail_status(error, status, NULL);
    } else if (!check(psk_session_append(sequence->session, tokens, *count, NULL), error))
        return false;
    sequence->node = serve_cache_advance(context->cache, sequence->node, tokens, *count);
    serve_cache_keep(context->cache, sequence->node, sequence->session, end);
    sequence->read = cut;
    return cut < end || end_prompt(context, sequence, error);
}

/* ------------------------------------------------------------------------------------------------- beginning and end
 */

/* SplitMix64 of (seed, number), the seed itself for number 0: different completions, each as it would be alone. */
static uint64_t seed_of(uint64_t seed, int64_t number) {
    if (number == 0)
        return seed;
    uint64_t z = seed + (uint64_t)number * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static bool fill(const serve_context *context, serve_sequence *sequence, const serve_prompt *prompt,
                 serve_error *error) {
    const serve_request *const request = &sequence->job->request;
    const int64_t V = psk_model_get_config(context->model)->vocab_size;
    sequence->held.top = request->logprobs <= 0 ? 0 : request->logprobs < V ? request->logprobs : V;
    sequence->count = sequence->prompt_count = prompt->count;
    sequence->capacity = prompt->count + 64;
    sequence->tokens = malloc((size_t)sequence->capacity * sizeof *sequence->tokens);
    if (!sequence->tokens)
        return no_memory(error);
    memcpy(sequence->tokens, prompt->tokens, (size_t)prompt->count * sizeof *sequence->tokens);
    if (!check(psk_text_stream_create((const char *const *)request->stops, request->stop_count, &sequence->text),
               error))
        return false;
    const bool plain = request->echo || request->logprobs >= 0;
    return !plain || check(psk_text_stream_create(NULL, 0, &sequence->plain), error);
}

static serve_sequence *create(const serve_context *context, serve_job *job, int64_t prompt, int64_t number,
                              serve_error *error) {
    serve_sequence *const sequence = calloc(1, sizeof *sequence);
    if (!sequence) {
        no_memory(error);
        return NULL;
    }
    sequence->job = job;
    sequence->choice = prompt * job->request.n + number;
    sequence->sampling = job->request.sampling;
    sequence->sampling.seed = seed_of(job->request.sampling.seed, number);
    if (fill(context, sequence, &job->request.prompts[prompt], error))
        return sequence;
    serve_sequence_free(context, sequence);
    return NULL;
}

void serve_sequence_free(const serve_context *context, serve_sequence *sequence) {
    if (!sequence)
        return;
    serve_cache_release(context->cache, sequence->node);
    psk_session_free(sequence->session);
    psk_text_stream_free(sequence->text);
    psk_text_stream_free(sequence->plain);
    serve_tokens_free(&sequence->held);
    free(sequence->tokens);
    free(sequence);
}

/* Known before anything is computed, and not when the text has come so far. */
static bool check_room(const serve_sequence *sequence, int64_t held, serve_error *error) {
    const int64_t more = sequence->prompt_count + sequence->job->request.max_tokens;
    return held + more <= INT32_MAX ||
           serve_fail(
               error, 400, "context_length_exceeded", "state",
               "state: its %lld tokens with %lld of prompt and max_tokens are more than the %d that a state holds",
               (long long)held, (long long)more, INT32_MAX);
}

/* The session that the first completion begins with: from a state, from the cache, or new. *cached: tokens in it. */
static bool open_session(const serve_context *context, serve_sequence *sequence, int64_t *cached, serve_error *error) {
    const serve_job *const job = sequence->job;
    const serve_bytes *const state = job->state ? &job->state->bytes : &job->request.state;
    const psk_session *found = NULL;
    if (state->data) {
        const psk_status status = psk_session_unpack(context->model, state->data, state->size, &sequence->session);
        if (status != PSK_OK)
            return serve_fail_status(error, status, "state");
        *cached = psk_session_length(sequence->session);
        return check_room(sequence, *cached, error);
    }
    if (!wants_prompt_logprobs(job))
        sequence->node = serve_cache_find(context->cache, sequence->tokens, sequence->prompt_count - 1, &found);
    if (!found)
        return check(psk_session_create(context->model, &sequence->session), error);
    if (!check(psk_session_clone(found, &sequence->session), error))
        return false;
    *cached = sequence->read = psk_session_length(sequence->session);
    return true;
}

static bool start(const serve_context *context, serve_sequence *first, serve_error *error) {
    serve_job *const job = first->job;
    int64_t cached = 0;
    if (!open_session(context, first, &cached, error))
        return false;
    job->usage.cached_tokens += cached;
    job->usage.prompt_tokens += first->prompt_count + cached - first->read;
    for (serve_sequence *s = first; s; s = s->follower) {
        if (!job->request.echo)
            continue;
        if (wants_prompt_logprobs(job) ? !echo_token(context, s, s->tokens[0], NULL, error)
                                       : !echo_prompt(context, s, error))
            return false;
    }
    return first->read < first->prompt_count - 1 || end_prompt(context, first, error);
}

bool serve_sequences_begin(const serve_context *context, serve_job *job, int64_t prompt, serve_sequence **all,
                           serve_error *error) {
    int64_t made = 0;
    while (made < job->request.n && (all[made] = create(context, job, prompt, made, error))) {
        if (made)
            all[made - 1]->follower = all[made];
        made++;
    }
    if (made == job->request.n && start(context, all[0], error))
        return true;
    for (int64_t i = 0; i < made; i++)
        serve_sequence_free(context, all[i]);
    return false;
}

/* ---------------------------------------------------------------------------------------------------------- writing
 */

bool serve_sequence_is_reading(const serve_sequence *sequence) {
    return sequence->session && !sequence->finished && sequence->read < sequence->prompt_count - 1;
}

bool serve_sequence_is_writing(const serve_sequence *sequence) {
    return sequence->session && !sequence->finished && sequence->read == sequence->count - 1;
}

static bool append(serve_sequence *sequence, int32_t token, serve_error *error) {
    if (sequence->count == sequence->capacity) {
        const int64_t capacity = 2 * sequence->capacity;
        int32_t *const larger = realloc(sequence->tokens, (size_t)capacity * sizeof *larger);
        if (!larger)
            return no_memory(error);
        sequence->tokens = larger;
        sequence->capacity = capacity;
    }
    sequence->tokens[sequence->count++] = token;
    sequence->job->usage.completion_tokens++;
    return true;
}

/* The session is to hold all tokens before it is packed. */
static bool pack(serve_sequence *sequence, serve_bytes *state, serve_error *error) {
    const int64_t left = sequence->count - sequence->read;
    if (left > 0 && !check(psk_session_append(sequence->session, sequence->tokens + sequence->read, left, NULL), error))
        return false;
    sequence->read = sequence->count;
    return check(psk_session_pack(sequence->session, &state->data, &state->size), error);
}

/* Whether a stop string came with the end: U+FFFD, for a character that is none now, was the last that it lacked. */
static bool note_stop(serve_sequence *sequence, serve_error *error) {
    const char *text;
    size_t size;
    if (sequence->stopped || !sequence->plain)
        return true;
    if (!check(psk_text_stream_finish(sequence->plain, &text, &size), error))
        return false;
    sequence->placed += count_characters(text, size);
    sequence->stopped = sequence->shown < sequence->placed;
    return true;
}

bool serve_sequence_finish(serve_sequence *sequence, const char *reason, serve_error *error) {
    const serve_request *const request = &sequence->job->request;
    const bool wants_state = sequence->session && (request->return_state || request->return_name[0]);
    const char *text;
    size_t size;
    serve_bytes state = {NULL, 0};
    if (!check(psk_text_stream_finish(sequence->text, &text, &size), error))
        return false;
    sequence->shown += count_characters(text, size);
    sequence->finished = true;
    if (!note_stop(sequence, error))
        return false;
    if (wants_state && !pack(sequence, &state, error))
        return false;
    if (put(sequence, text, size, reason, state.data ? &state : NULL, error))
        return true;
    psk_buffer_free(state.data);
    return false;
}

/* Text and place of a new token. */
static bool show_token(const serve_context *context, serve_sequence *sequence, int32_t token, const float *logits,
                       serve_error *error) {
    const char *bytes, *text;
    size_t count, size;
    int stopped;
    if (sequence->job->request.logprobs >= 0 && (!note_token(context, sequence, token, logits, error) ||
                                                 !place_token(context, sequence, token, &text, &size, error)))
        return false;
    if (!token_bytes(context, token, &bytes, &count, error) ||
        !check(psk_text_stream_push(sequence->text, bytes, count, &text, &size, &stopped), error))
        return false;
    sequence->stopped = stopped != 0;
    sequence->shown += count_characters(text, size);
    return put(sequence, text, size, NULL, NULL, error);
}

bool serve_sequence_write(const serve_context *context, serve_sequence *sequence, const float *logits,
                          serve_error *error) {
    const int64_t V = psk_model_get_config(context->model)->vocab_size;
    const int64_t written = sequence->count - sequence->prompt_count;
    int32_t token;
    sequence->read++;
    if (!check(psk_sample(&sequence->sampling, V, logits, sequence->tokens, sequence->count, written, &token), error))
        return false;
    if (token == psk_tokenizer_end_of_text(context->tokenizer))
        return serve_sequence_finish(sequence, "stop", error);
    if (!append(sequence, token, error) || !show_token(context, sequence, token, logits, error))
        return false;
    if (sequence->stopped)
        return serve_sequence_finish(sequence, "stop", error);
    return written + 1 < sequence->job->request.max_tokens || serve_sequence_finish(sequence, "length", error);
}
