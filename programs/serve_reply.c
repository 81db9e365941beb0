#include "serve_reply.h"

#include "records.h"
#include "serve_base64.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(9)) /* 9 digits tell every float from its neighbours */

/* ---------------------------------------------------------------------------------------------------------- choices
 */

bool serve_choice_add_text(serve_choice *choice, const char *text, size_t size) {
    if (choice->size + size > choice->capacity) {
        const size_t capacity = 2 * (choice->size + size) + 64;
        char *const larger = realloc(choice->text, capacity);
        if (!larger)
            return false;
        choice->text = larger;
        choice->capacity = capacity;
    }
    if (size)
        memcpy(choice->text + choice->size, text, size);
    choice->size += size;
    return true;
}

bool serve_choice_add(serve_choice *choice, serve_piece *piece) {
    choice->tokens.top = piece->tokens.top;
    if ((piece->size && !serve_choice_add_text(choice, piece->text, piece->size)) ||
        !serve_tokens_move(&piece->tokens, piece->tokens.count, &choice->tokens))
        return false;
    if (piece->finish) {
        choice->finish = piece->finish;
        choice->state = piece->state;
        choice->session_tokens = piece->session_tokens;
        choice->session_bytes = piece->session_bytes;
        piece->state = (serve_bytes){NULL, 0};
    }
    return true;
}

void serve_choice_free(serve_choice *choice) {
    free(choice->text);
    serve_tokens_free(&choice->tokens);
    psk_buffer_free(choice->state.data);
}

/* ------------------------------------------------------------------------------------------------ log-probabilities
 */

static json_t *bytes_json(const char *bytes, size_t size) {
    char *const text = malloc(6 + 4 * size + 1), *out = text;
    if (!text)
        return NULL;
    out += sprintf(out, "bytes:");
    for (size_t i = 0; i < size; i++)
        out += sprintf(out, "\\x%02x", (unsigned char)bytes[i]);
    json_t *const json = json_string(text);
    free(text);
    return json;
}

json_t *serve_token_json(const psk_tokenizer *tokenizer, int32_t token) {
    const char *bytes = "";
    size_t size = 0;
    if (token < psk_tokenizer_vocab_size(tokenizer) &&
        psk_tokenizer_token_text(tokenizer, token, &bytes, &size) != PSK_OK)
        return NULL;
    if (size == 0 && token == psk_tokenizer_end_of_text(tokenizer))
        return json_string(SERVE_END_OF_TEXT);
    if (size == 0)
        return json_sprintf("<|%d|>", (int)token);
    json_t *const text = memchr(bytes, '\0', size) ? NULL : json_stringn(bytes, size);
    return text ? text : bytes_json(bytes, size);
}

static void set_top(const psk_tokenizer *tokenizer, json_t *object, int32_t token, float logprob) {
    json_t *const name = serve_token_json(tokenizer, token);
    if (name)
        json_object_set_new(object, json_string_value(name), json_number((double)logprob));
    json_decref(name);
}

/* {"token": log-probability, ...} of the likeliest and of the token itself. */
static json_t *top_json(const psk_tokenizer *tokenizer, const serve_token *token, const serve_top *tops, int64_t top) {
    json_t *const object = json_object();
    for (int64_t i = 0; i < top && object; i++)
        set_top(tokenizer, object, tops[i].token, tops[i].logprob);
    if (object)
        set_top(tokenizer, object, token->token, token->logprob);
    return object;
}

static json_t *logprobs_json(const serve_reply *reply, const serve_tokens *list) {
    if (reply->job->request.logprobs < 0)
        return json_null();
    json_t *const tokens = json_array(), *const logprobs = json_array(), *const tops = json_array(),
                  *const offsets = json_array();
    for (int64_t i = 0; i < list->count; i++) {
        const serve_token *const token = &list->tokens[i];
        const bool first = token->logprob != token->logprob;
        json_array_append_new(tokens, serve_token_json(reply->tokenizer, token->token));
        json_array_append_new(logprobs, json_number((double)token->logprob));
        json_array_append_new(offsets, json_integer(token->offset));
        json_array_append_new(tops, first ? json_null()
                                          : top_json(reply->tokenizer, token, list->tops + i * list->top, list->top));
    }
    const bool topless = reply->job->request.logprobs == 0;
    json_t *const object = json_pack("{s:o, s:o, s:O, s:o}", "tokens", tokens, "token_logprobs", logprobs,
                                     "top_logprobs", topless ? json_null() : tops, "text_offset", offsets);
    json_decref(tops);
    return object;
}

/* ---------------------------------------------------------------------------------------------------------- replies
 */

static json_t *usage_json(const serve_usage *usage) {
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)usage->prompt_tokens, "completion_tokens",
                     (json_int_t)usage->completion_tokens, "total_tokens",
                     (json_int_t)(usage->prompt_tokens + usage->completion_tokens), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)usage->cached_tokens);
}

/* As it was written: 0.8, not the nearest float. */
static json_t *setting_json(float value) {
    return json_number(round((double)value * 1e6) / 1e6);
}

/* What was used, so that the same can be asked for again; in the order in which it is applied. */
static json_t *sampling_json(const psk_sampling *s) {
    return json_pack("{s:o, s:o, s:o, s:I, s:o, s:I, s:o, s:o, s:I}", "repetition_penalty",
                     setting_json(s->repetition_penalty), "presence_penalty", setting_json(s->presence_penalty),
                     "frequency_penalty", setting_json(s->frequency_penalty), "penalty_window",
                     (json_int_t)s->penalty_window, "temperature", setting_json(s->temperature), "top_k",
                     (json_int_t)s->top_k, "top_p", setting_json(s->top_p), "min_p", setting_json(s->min_p), "seed",
                     (json_int_t)s->seed);
}

/* As `state` of a later request takes it; null if none was asked for, or if it is kept here under a name. */
static json_t *state_json(const serve_request *request, const serve_bytes *state, int64_t tokens) {
    if (!state->data)
        return NULL;
    json_t *const json = json_pack("{s:I, s:I}", "tokens", (json_int_t)tokens, "bytes", (json_int_t)state->size);
    if (request->return_name[0])
        json_object_set_new(json, "name", json_string(request->return_name));
    if (!request->return_state)
        return json;
    char *const data = serve_base64_encode(state->data, state->size);
    json_object_set_new(json, "data", data ? json_stringn_nocheck(data, strlen(data)) : NULL);
    free(data);
    return json;
}

static json_t *choice_json(const serve_reply *reply, int64_t index, const char *text, size_t size,
                           const serve_tokens *tokens) {
    return json_pack("{s:I, s:o, s:o, s:n}", "index", (json_int_t)index, "text", json_stringn(size ? text : "", size),
                     "logprobs", logprobs_json(reply, tokens), "finish_reason");
}

static void finish_choice(const serve_reply *reply, json_t *choice, const char *finish, int64_t tokens, int64_t bytes,
                          const serve_bytes *state) {
    if (!finish)
        return;
    json_object_set_new(choice, "finish_reason", json_string(finish));
    json_object_set_new(choice, "session",
                        json_pack("{s:I, s:I}", "tokens", (json_int_t)tokens, "bytes", (json_int_t)bytes));
    json_object_set_new(choice, "state", state_json(&reply->job->request, state, tokens));
}

static json_t *reply_json(const serve_reply *reply, json_t *choices) {
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", reply->id, "object", "text_completion", "created",
                     (json_int_t)reply->created, "model", reply->model, "choices", choices);
}

char *serve_reply_whole(const serve_reply *reply, const serve_choice *choices) {
    const serve_request *const request = &reply->job->request;
    json_t *const list = json_array();
    for (int64_t i = 0; i < request->prompt_count * request->n; i++) {
        const serve_choice *const c = &choices[i];
        json_t *const choice = choice_json(reply, i, c->text, c->size, &c->tokens);
        finish_choice(reply, choice, c->finish, c->session_tokens, c->session_bytes, &c->state);
        json_array_append_new(list, choice);
    }
    json_t *const object = reply_json(reply, list);
    json_object_set_new(object, "usage", usage_json(&reply->job->usage));
    json_object_set_new(object, "sampling", sampling_json(&request->sampling));
    char *const text = json_dumps(object, FLAGS);
    json_decref(object);
    return text;
}

static char *event_text(json_t *object) {
    char *const json = json_dumps(object, FLAGS), *text = NULL;
    json_decref(object);
    if (json && asprintf(&text, "data: %s\n\n", json) < 0)
        text = NULL;
    free(json);
    return text;
}

char *serve_reply_event(const serve_reply *reply, const serve_piece *piece) {
    json_t *const choice = choice_json(reply, piece->choice, piece->text, piece->size, &piece->tokens);
    finish_choice(reply, choice, piece->finish, piece->session_tokens, piece->session_bytes, &piece->state);
    json_t *const object = reply_json(reply, json_pack("[o]", choice));
    if (reply->job->request.include_usage)
        json_object_set_new(object, "usage", json_null());
    return event_text(object);
}

static char *join(char *first, const char *second) {
    char *text = NULL;
    if (first && asprintf(&text, "%s%s", first, second) < 0)
        text = NULL;
    free(first);
    return text;
}

char *serve_reply_last_event(const serve_reply *reply, const serve_error *error) {
    if (error->http)
        return event_text(serve_error_json(error));
    if (!reply->job->request.include_usage)
        return strdup("data: [DONE]\n\n");
    json_t *const object = reply_json(reply, json_array());
    json_object_set_new(object, "usage", usage_json(&reply->job->usage));
    json_object_set_new(object, "sampling", sampling_json(&reply->job->request.sampling));
    return join(event_text(object), "data: [DONE]\n\n");
}
