/* The routes, and the answers that need no job. */
#include "serve_call.h"

#include "serve_page.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_POLICY                                                                                                    \
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "   \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

static enum MHD_Result send_page(serve_call *call) {
    struct MHD_Response *const response =
        MHD_create_response_from_buffer(serve_page_size, (void *)serve_page, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/html; charset=utf-8");
    MHD_add_response_header(response, "Content-Security-Policy", PAGE_POLICY);
    return serve_send_response(call, 200, response);
}

static enum MHD_Result send_health(serve_call *call) {
    return serve_send_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

static enum MHD_Result send_metrics(serve_call *call) {
    serve_metrics *const metrics = call->http->options.metrics;
    int64_t states, bytes;
    serve_states_size(call->http->options.states, &states, &bytes);
    atomic_store(&metrics->states, states);
    atomic_store(&metrics->states_bytes, bytes);
    atomic_store(&metrics->resident_bytes, serve_resident_bytes());
    atomic_store(&metrics->uptime_seconds, (int64_t)(seconds_now() - call->http->started));
    size_t size = 0;
    char *const text = serve_metrics_text(metrics, &size);
    return serve_send(call, 200, "text/plain; version=0.0.4", text, size);
}

/* ------------------------------------------------------------------------------------------------------------ models
 */

static json_t *model_json(const serve_call *call) {
    const psk_model *const model = call->http->options.model;
    const psk_model_config *const config = psk_model_get_config(model);
    const serve_limits *const limits = &call->http->options.limits;
    return json_pack(
        "{s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:{s:I, s:I}, s:{s:I, s:I, s:I, s:I}}", "id",
        call->http->options.name, "object", "model", "created", (json_int_t)0, "owned_by", "polysketch", "parameters",
        (json_int_t)psk_model_parameter_count(model), "vocab_size", (json_int_t)config->vocab_size, "trained_context",
        (json_int_t)config->n_positions, "attention", psk_mechanism_name(config->attention.mechanism), "tokenizer",
        psk_tokenizer_name(call->http->options.tokenizer), "block_size", (json_int_t)config->attention.block_size,
        "state_bytes", "1024", (json_int_t)psk_session_bytes_at(model, 1024), "1048576",
        (json_int_t)psk_session_bytes_at(model, 1048576), "limits", "prompt_tokens", (json_int_t)limits->prompt_tokens,
        "max_tokens", (json_int_t)limits->max_tokens, "n", (json_int_t)limits->choices, "body_bytes",
        (json_int_t)call->http->options.body_bytes);
}

static enum MHD_Result send_models(serve_call *call) {
    return serve_send_json(call, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(call)));
}

static enum MHD_Result send_model(serve_call *call) {
    serve_error error = {0};
    if (strcmp(call->rest, call->http->options.name) == 0)
        return serve_send_json(call, 200, model_json(call));
    serve_fail(&error, 404, "model_not_found", "model", "model: \"%.80s\" is not here; this server has \"%s\"",
               call->rest, call->http->options.name);
    return serve_send_error(call, &error);
}

/* ------------------------------------------------------------------------------------------------------------ tokens
 */

static enum MHD_Result send_tokenizer(serve_call *call) {
    const psk_tokenizer *const tokenizer = call->http->options.tokenizer;
    const int32_t end = psk_tokenizer_end_of_text(tokenizer);
    return serve_send_json(call, 200,
                           json_pack("{s:s, s:I, s:s?, s:i, s:n, s:n, s:n}", "name", psk_tokenizer_name(tokenizer),
                                     "vocab_size", (json_int_t)psk_tokenizer_vocab_size(tokenizer), "eos_token",
                                     end < 0 ? NULL : SERVE_END_OF_TEXT, "eos_token_id", (int)end, "bos_token",
                                     "pad_token", "chat_template"));
}

/* Refuses every name but the given ones. */
static bool check_names(const json_t *object, const char *const *names, serve_error *error) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        size_t i = 0;
        while (names[i] && strcmp(names[i], name) != 0)
            i++;
        if (!names[i])
            return serve_fail(error, 400, "unknown_parameter", name, "no field \"%.60s\"", name);
    }
    return true;
}

static bool is_end_of_text(const json_t *text) {
    return json_string_length(text) == strlen(SERVE_END_OF_TEXT) &&
           strcmp(json_string_value(text), SERVE_END_OF_TEXT) == 0;
}

static json_t *tokens_json(const int32_t *tokens, int64_t count) {
    json_t *const list = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(tokens[i]));
    return list;
}

static json_t *tokenize(const serve_call *call, const json_t *object, serve_error *error) {
    static const char *const names[] = {"prompt", "model", "add_special_tokens", NULL};
    const psk_tokenizer *const tokenizer = call->http->options.tokenizer;
    const json_t *const text = json_object_get(object, "prompt");
    int32_t *tokens = NULL, end = psk_tokenizer_end_of_text(tokenizer);
    int64_t count = 0;
    if (!check_names(object, names, error))
        return NULL;
    if (!json_is_string(text)) {
        serve_fail(error, 400, "missing_required_parameter", "prompt", "prompt: must be a string");
        return NULL;
    }
    if (end >= 0 && is_end_of_text(text))
        return json_pack("{s:[i], s:i}", "tokens", (int)end, "count", 1);
    const psk_status status =
        psk_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), &tokens, &count);
    if (status != PSK_OK) {
        serve_fail_status(error, status, "prompt");
        return NULL;
    }
    json_t *const answer = json_pack("{s:o, s:I}", "tokens", tokens_json(tokens, count), "count", (json_int_t)count);
    psk_buffer_free(tokens);
    return answer;
}

/* The text of the tokens that have one, with U+FFFD for bytes that are no characters. */
static json_t *decode(const psk_tokenizer *tokenizer, const int32_t *tokens, int64_t count, serve_error *error) {
    serve_choice text = {0};
    psk_text_stream *stream = NULL;
    const char *bytes, *shown;
    size_t size, shown_size;
    int stopped;
    psk_status status = psk_text_stream_create(NULL, 0, &stream);
    bool good = true;
    for (int64_t i = 0; i < count && status == PSK_OK && good; i++) {
        status = psk_tokenizer_token_text(tokenizer, tokens[i], &bytes, &size);
        if (status == PSK_OK)
            status = psk_text_stream_push(stream, bytes, size, &shown, &shown_size, &stopped);
        good = status != PSK_OK || serve_choice_add_text(&text, shown, shown_size);
    }
    if (status == PSK_OK)
        status = psk_text_stream_finish(stream, &shown, &shown_size);
    if (status == PSK_OK)
        good = good && serve_choice_add_text(&text, shown, shown_size);
    else
        serve_fail_status(error, status, "tokens");
    json_t *const answer = status == PSK_OK && good
                               ? json_pack("{s:o}", "prompt", json_stringn(text.size ? text.text : "", text.size))
                               : NULL;
    psk_text_stream_free(stream);
    serve_choice_free(&text);
    return answer;
}

static json_t *detokenize(const serve_call *call, const json_t *object, serve_error *error) {
    static const char *const names[] = {"tokens", "model", NULL};
    const psk_tokenizer *const tokenizer = call->http->options.tokenizer;
    const json_t *const list = json_object_get(object, "tokens");
    int32_t *tokens = NULL;
    int64_t count;
    json_t *answer = NULL;
    if (!check_names(object, names, error))
        return NULL;
    if (!json_is_array(list))
        serve_fail(error, 400, "missing_required_parameter", "tokens", "tokens: must be a list of tokens");
    else if (serve_read_tokens(list, psk_tokenizer_vocab_size(tokenizer), "tokens", &tokens, &count, error))
        answer = decode(tokenizer, tokens, count, error);
    free(tokens);
    return answer;
}

static enum MHD_Result answer_object(serve_call *call, json_t *(*function)(const serve_call *call, const json_t *object,
                                                                           serve_error *error)) {
    serve_error error = {0};
    json_t *const object = serve_json_object(call->body, call->size, &error);
    json_t *const answer = object ? function(call, object, &error) : NULL;
    json_decref(object);
    return error.http ? serve_send_error(call, &error) : serve_send_json(call, 200, answer);
}

static enum MHD_Result send_tokens(serve_call *call) {
    return answer_object(call, tokenize);
}

static enum MHD_Result send_text(serve_call *call) {
    return answer_object(call, detokenize);
}

/* ------------------------------------------------------------------------------------------------------------ states
 */

static enum MHD_Result send_states(serve_call *call) {
    return serve_send_json(
        call, 200, json_pack("{s:s, s:o}", "object", "list", "data", serve_states_list(call->http->options.states)));
}

static bool check_name(const serve_call *call, serve_error *error) {
    return serve_name_is_good(call->rest) ||
           serve_fail(error, 400, NULL, NULL,
                      "a state's name has 1 to %d letters, digits, '.', '_' and '-', and not only dots",
                      SERVE_NAME_CAPACITY - 1);
}

static enum MHD_Result get_state(serve_call *call) {
    serve_error error = {0};
    serve_state *const state =
        check_name(call, &error) ? serve_states_get(call->http->options.states, call->rest, &error) : NULL;
    if (!state)
        return serve_send_error(call, &error);
    char *const copy = malloc(state->bytes.size + 1);
    const size_t size = state->bytes.size;
    if (copy)
        memcpy(copy, state->bytes.data, size);
    serve_state_release(state);
    return serve_send(call, 200, "application/octet-stream", copy, size);
}

static enum MHD_Result put_state(serve_call *call) {
    serve_error error = {0};
    const serve_bytes bytes = {call->body, call->size};
    int64_t tokens = 0;
    if (bytes.size == 0)
        serve_fail(&error, 400, NULL, NULL, "the body is empty: it must be a state as GET gives it");
    if (error.http || !check_name(call, &error) ||
        !serve_engine_check_state(call->http->options.engine, &bytes, &tokens, &error) ||
        !serve_states_put(call->http->options.states, call->rest, &bytes, tokens, &error))
        return serve_send_error(call, &error);
    return serve_send_json(call, 200,
                           json_pack("{s:s, s:I, s:I}", "name", call->rest, "tokens", (json_int_t)tokens, "bytes",
                                     (json_int_t)bytes.size));
}

static enum MHD_Result delete_state(serve_call *call) {
    serve_error error = {0};
    if (!check_name(call, &error) || !serve_states_delete(call->http->options.states, call->rest, &error))
        return serve_send_error(call, &error);
    return serve_send_json(call, 200, json_pack("{s:s, s:b}", "name", call->rest, "deleted", 1));
}

/* ------------------------------------------------------------------------------------------------------------- table
 */

static const serve_route routes[] = {
    {"GET", "/", false, true, send_page},
    {"GET", "/health", false, true, send_health},
    {"GET", "/metrics", false, false, send_metrics},
    {"GET", "/v1/models", false, false, send_models},
    {"GET", "/v1/models/", true, false, send_model},
    {"POST", "/v1/completions", false, false, serve_completions},
    {"POST", "/tokenize", false, false, send_tokens},
    {"POST", "/detokenize", false, false, send_text},
    {"GET", "/tokenizer_info", false, false, send_tokenizer},
    {"GET", "/v1/state", false, false, send_states},
    {"GET", "/v1/state/", true, false, get_state},
    {"PUT", "/v1/state/", true, false, put_state},
    {"DELETE", "/v1/state/", true, false, delete_state},
};

const serve_route *serve_route_find(const char *method, const char *path, const char **rest, serve_error *error) {
    const char *const wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    char methods[64] = "";
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const size_t length = strlen(routes[i].path);
        if (strncmp(path, routes[i].path, length) != 0 || (path[length] != '\0') != routes[i].below)
            continue;
        *rest = path + length;
        if (strcmp(wanted, routes[i].method) == 0)
            return &routes[i];
        strcat(strcat(methods, *methods ? ", " : ""), routes[i].method);
    }
    if (*methods)
        serve_fail(error, 405, NULL, NULL, "%.16s is not what %.120s takes: %s", method, path, methods);
    else
        serve_fail(error, 404, NULL, NULL, "there is no %.120s here", path);
    return NULL;
}
