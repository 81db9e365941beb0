#include "serve_request.h"

#include "options.h"
#include "serve_base64.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct request_reader {
    const serve_limits *limits;
    serve_request *request;
    const char *field; /* the one being read */
    serve_error *error;
} request_reader;

#define refuse(reader, ...) serve_fail((reader)->error, 400, NULL, (reader)->field, __VA_ARGS__)

static bool no_memory(serve_error *error) {
    return serve_fail(error, 503, NULL, NULL, "out of memory");
}

static const char *kind_of(const json_t *value) {
    static const char *const kinds[] = {"an object",     "an array", "a string", "a whole number",
                                        "a real number", "true",     "false",    "null"};
    return kinds[json_typeof(value)];
}

/* ---------------------------------------------------------------------------------------------------------- prompts
 */

bool serve_read_tokens(const json_t *list, int64_t vocab_size, const char *param, int32_t **tokens, int64_t *count,
                       serve_error *error) {
    const size_t size = json_array_size(list);
    *tokens = malloc((size + 1) * sizeof **tokens);
    if (!*tokens)
        return no_memory(error);
    *count = (int64_t)size;
    for (size_t i = 0; i < size; i++) {
        const json_t *const value = json_array_get(list, i);
        if (!json_is_integer(value))
            return serve_fail(error, 400, NULL, param, "%s: entry %zu is %s instead of a token", param, i,
                              kind_of(value));
        const json_int_t token = json_integer_value(value);
        if (token < 0 || token >= vocab_size)
            return serve_fail(error, 400, NULL, param,
                              "%s: entry %zu, token %lld, is not in the vocabulary of %lld tokens", param, i,
                              (long long)token, (long long)vocab_size);
        (*tokens)[i] = (int32_t)token;
    }
    return true;
}

static bool read_prompt_text(request_reader *reader, const json_t *value, serve_prompt *prompt) {
    prompt->size = json_string_length(value);
    prompt->text = malloc(prompt->size + 1);
    if (!prompt->text)
        return no_memory(reader->error);
    memcpy(prompt->text, json_string_value(value), prompt->size + 1);
    return true;
}

static bool read_one_prompt(request_reader *reader, const json_t *value, serve_prompt *prompt) {
    if (json_is_string(value))
        return read_prompt_text(reader, value, prompt);
    return serve_read_tokens(value, reader->limits->vocab_size, "prompt", &prompt->tokens, &prompt->count,
                             reader->error);
}

static bool make_prompts(request_reader *reader, int64_t count) {
    serve_request *const request = reader->request;
    if (count > reader->limits->prompts)
        return refuse(reader, "prompt: %lld prompts are more than the %lld that one request may have", (long long)count,
                      (long long)reader->limits->prompts);
    request->prompts = calloc((size_t)count, sizeof *request->prompts);
    if (!request->prompts)
        return no_memory(reader->error);
    request->prompt_count = count;
    return true;
}

/* A string, tokens, strings, or lists of tokens. */
static bool read_prompt(request_reader *reader, const json_t *value) {
    const json_t *const first = json_array_get(value, 0);
    const bool one = json_is_string(value) || json_is_integer(first);
    if (!one && !json_is_string(first) && !json_is_array(first))
        return refuse(reader,
                      "prompt: must be a string, a list of tokens, a list of strings or a list of lists of tokens, "
                      "and not empty");
    if (one)
        return make_prompts(reader, 1) && read_one_prompt(reader, value, &reader->request->prompts[0]);
    if (!make_prompts(reader, (int64_t)json_array_size(value)))
        return false;
    for (int64_t i = 0; i < reader->request->prompt_count; i++) {
        const json_t *const entry = json_array_get(value, (size_t)i);
        if (json_typeof(entry) != json_typeof(first))
            return refuse(reader, "prompt: entry %lld is %s, entry 0 %s: all must be of one kind", (long long)i,
                          kind_of(entry), kind_of(first));
        if (!read_one_prompt(reader, entry, &reader->request->prompts[i]))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------ other fields
 */

static bool copy_text(request_reader *reader, const json_t *value, char **text) {
    if (!json_is_string(value))
        return refuse(reader, "%s: is %s instead of a string", reader->field, kind_of(value));
    if (strlen(json_string_value(value)) != json_string_length(value))
        return refuse(reader, "%s: must not have a zero byte", reader->field);
    *text = strdup(json_string_value(value));
    return *text || no_memory(reader->error);
}

static bool read_model(request_reader *reader, const json_t *value) {
    return copy_text(reader, value, &reader->request->model);
}

static bool read_stop_string(request_reader *reader, const json_t *value) {
    serve_request *const request = reader->request;
    const size_t size = json_string_length(value);
    if (json_is_string(value) && (size == 0 || size > SERVE_STOP_BYTES))
        return refuse(reader, "stop: a stop string has 1 to %d bytes; this one has %zu", SERVE_STOP_BYTES, size);
    return copy_text(reader, value, &request->stops[request->stop_count]) && ++request->stop_count;
}

static bool read_stop(request_reader *reader, const json_t *value) {
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > SERVE_STOPS)
        return refuse(reader, "stop: %zu strings are more than %d", count, SERVE_STOPS);
    reader->request->stops = calloc(count + 1, sizeof *reader->request->stops);
    if (!reader->request->stops)
        return no_memory(reader->error);
    for (size_t i = 0; i < count; i++)
        if (!read_stop_string(reader, json_is_array(value) ? json_array_get(value, i) : value))
            return false;
    return true;
}

static bool read_one_bias(request_reader *reader, const char *name, const json_t *value, psk_logit_bias *bias) {
    char *end;
    const long long token = strtoll(name, &end, 10);
    if (*name < '0' || *name > '9' || *end || token >= reader->limits->vocab_size)
        return refuse(reader, "logit_bias: \"%.40s\" is no token of the vocabulary of %lld", name,
                      (long long)reader->limits->vocab_size);
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(fabs(number) <= 100))
        return refuse(reader, "logit_bias: the bias of token %lld must be a number from -100 to 100", token);
    *bias = (psk_logit_bias){.token = (int32_t)token, .bias = (float)number};
    return true;
}

static bool read_logit_bias(request_reader *reader, const json_t *value) {
    psk_sampling *const sampling = &reader->request->sampling;
    const size_t size = json_object_size(value);
    if (!json_is_object(value) || size > SERVE_BIASES)
        return refuse(reader, "logit_bias: must be an object {\"token\": bias, ...} of at most %d tokens",
                      SERVE_BIASES);
    psk_logit_bias *const biases = calloc(size + 1, sizeof *biases);
    if (!biases)
        return no_memory(reader->error);
    sampling->bias = reader->request->biases = biases;
    const char *name;
    json_t *number;
    json_object_foreach((json_t *)value, name,
                        number) if (!read_one_bias(reader, name, number, &biases[sampling->bias_count++])) return false;
    return true;
}

static bool read_seed(request_reader *reader, const json_t *value) {
    if (!json_is_integer(value))
        return refuse(reader, "seed: is %s instead of a whole number", kind_of(value));
    reader->request->sampling.seed = (uint64_t)json_integer_value(value);
    reader->request->seeded = 1;
    return true;
}

static bool read_stream_options(request_reader *reader, const json_t *value) {
    const char *name;
    json_t *flag;
    if (!json_is_object(value))
        return refuse(reader, "stream_options: is %s instead of an object", kind_of(value));
    json_object_foreach((json_t *)value, name, flag) {
        if (strcmp(name, "include_usage") != 0)
            return refuse(reader, "stream_options: no option \"%.60s\"; there is include_usage", name);
        if (!json_is_boolean(flag))
            return refuse(reader, "stream_options: include_usage is %s instead of true or false", kind_of(flag));
        reader->request->include_usage = json_is_true(flag);
    }
    return true;
}

/* What we do not compute is accepted only where it asks for nothing. */
static bool read_best_of(request_reader *reader, const json_t *value) {
    if (!json_is_integer(value) || json_integer_value(value) != reader->request->n)
        return refuse(reader, "best_of: choosing among more completions than n is not done here; leave it out");
    return true;
}

static bool read_suffix(request_reader *reader, const json_t *value) {
    if (!json_is_string(value) || json_string_length(value) > 0)
        return refuse(reader, "suffix: filling in is not done here; leave it out");
    return true;
}

static bool read_user(request_reader *reader, const json_t *value) {
    if (!json_is_string(value))
        return refuse(reader, "user: is %s instead of a string", kind_of(value));
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- states
 */

bool serve_name_is_good(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const size_t length = strlen(name);
    return length > 0 && length < SERVE_NAME_CAPACITY && strspn(name, letters) == length && strspn(name, ".") != length;
}

static bool read_name(request_reader *reader, const json_t *value, char name[SERVE_NAME_CAPACITY]) {
    const char *const text = json_string_value(value);
    if (strlen(text) != json_string_length(value) || !serve_name_is_good(text))
        return refuse(reader, "%s: a name has 1 to %d letters, digits, '.', '_' and '-', and not only dots",
                      reader->field, SERVE_NAME_CAPACITY - 1);
    strcpy(name, text);
    return true;
}

/* "NAME", or {"data": BASE64} as return_state gave it. */
static bool read_state(request_reader *reader, const json_t *value) {
    serve_request *const request = reader->request;
    if (json_is_string(value))
        return read_name(reader, value, request->state_name);
    const json_t *const data = json_object_get(value, "data");
    if (!json_is_string(data))
        return refuse(reader,
                      "state: must be the name of a stored state, or {\"data\": BASE64} as return_state gives it");
    if (!serve_base64_decode(json_string_value(data), json_string_length(data), &request->state.data,
                             &request->state.size))
        return refuse(reader, "state: data is not base64");
    return true;
}

static bool read_return_state(request_reader *reader, const json_t *value) {
    if (json_is_string(value))
        return read_name(reader, value, reader->request->return_name);
    if (!json_is_boolean(value))
        return refuse(reader, "return_state: is %s instead of true, false or a name", kind_of(value));
    reader->request->return_state = json_is_true(value);
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- table
 */

typedef enum field_kind { FIELD_OTHER, FIELD_WHOLE, FIELD_REAL, FIELD_FLAG } field_kind;

/* A field is either a number or flag at `offset` of the request, or read by its own function. */
typedef struct request_field {
    const char *name;
    field_kind kind;
    size_t offset;    /* WHOLE: int64_t, REAL: float, FLAG: int */
    double low, high; /* both ends allowed */
    bool (*read)(request_reader *reader, const json_t *value);
    size_t limit; /* where the server's limits have the high end; 0: they do not */
} request_field;

#define AT(member)          offsetof(serve_request, member)
#define RANGE(from, to)     .low = (from), .high = (to)
#define UP_TO(from, member) .low = (from), .limit = offsetof(serve_limits, member)
#define LARGEST_WHOLE       1e15

/* In the order of reading: best_of looks at n. */
static const request_field fields[] = {
    {"model", .read = read_model},
    {"prompt", .read = read_prompt},
    {"n", FIELD_WHOLE, AT(n), UP_TO(1, choices)},
    {"best_of", .read = read_best_of},
    {"max_tokens", FIELD_WHOLE, AT(max_tokens), UP_TO(0, max_tokens)},
    {"stream", .kind = FIELD_FLAG, .offset = AT(stream)},
    {"stream_options", .read = read_stream_options},
    {"echo", .kind = FIELD_FLAG, .offset = AT(echo)},
    {"logprobs", FIELD_WHOLE, AT(logprobs), RANGE(0, SERVE_TOP_LOGPROBS)},
    {"stop", .read = read_stop},
    {"seed", .read = read_seed},
    {"temperature", FIELD_REAL, AT(sampling.temperature), RANGE(0, 100)},
    {"top_k", FIELD_WHOLE, AT(sampling.top_k), RANGE(0, LARGEST_WHOLE)},
    {"top_p", FIELD_REAL, AT(sampling.top_p), RANGE(1e-6, 1)},
    {"min_p", FIELD_REAL, AT(sampling.min_p), RANGE(0, 1)},
    {"repetition_penalty", FIELD_REAL, AT(sampling.repetition_penalty), RANGE(1e-3, 1e3)},
    {"presence_penalty", FIELD_REAL, AT(sampling.presence_penalty), RANGE(-100, 100)},
    {"frequency_penalty", FIELD_REAL, AT(sampling.frequency_penalty), RANGE(-100, 100)},
    {"penalty_window", FIELD_WHOLE, AT(sampling.penalty_window), RANGE(0, LARGEST_WHOLE)},
    {"logit_bias", .read = read_logit_bias},
    {"state", .read = read_state},
    {"return_state", .read = read_return_state},
    {"suffix", .read = read_suffix},
    {"user", .read = read_user},
};
#define FIELD_COUNT (sizeof fields / sizeof fields[0])

static double high_end(const request_reader *reader, const request_field *field) {
    return field->limit ? (double)*(const int64_t *)((const char *)reader->limits + field->limit) : field->high;
}

static bool read_number(request_reader *reader, const request_field *field, const json_t *value) {
    const bool whole = field->kind == FIELD_WHOLE;
    if (whole ? !json_is_integer(value) : !json_is_number(value))
        return refuse(reader, "%s: is %s instead of a %snumber", field->name, kind_of(value), whole ? "whole " : "");
    const double number = json_number_value(value), high = high_end(reader, field);
    if (!(number >= field->low && number <= high))
        return refuse(reader, "%s: %.15g is outside %.15g ... %.15g%s", field->name, number, field->low, high,
                      field->limit ? ", the limit of this server" : "");
    char *const target = (char *)reader->request + field->offset;
    if (whole)
        *(int64_t *)target = json_integer_value(value);
    else
        *(float *)target = (float)number;
    return true;
}

static bool read_field(request_reader *reader, const request_field *field, const json_t *value) {
    reader->field = field->name;
    if (field->read)
        return field->read(reader, value);
    if (field->kind != FIELD_FLAG)
        return read_number(reader, field, value);
    if (!json_is_boolean(value))
        return refuse(reader, "%s: is %s instead of true or false", field->name, kind_of(value));
    *(int *)((char *)reader->request + field->offset) = json_is_true(value);
    return true;
}

static bool refuse_name(const char *name, const char *const *names, serve_error *error) {
    const char *const near = nearest_name(name, names);
    char list[400] = "";
    for (; *names; names++)
        strcat(strcat(list, *list ? ", " : ""), *names);
    return serve_fail(error, 400, "unknown_parameter", name, "no field \"%.60s\"%s%s%s; there are %s", name,
                      near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "", list);
}

static bool check_names(const json_t *object, serve_error *error) {
    const char *names[FIELD_COUNT + 1] = {NULL};
    for (size_t i = 0; i < FIELD_COUNT; i++)
        names[i] = fields[i].name;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        size_t i = 0;
        while (i < FIELD_COUNT && strcmp(name, names[i]) != 0)
            i++;
        if (i == FIELD_COUNT)
            return refuse_name(name, names, error);
    }
    return true;
}

/* What only several fields together can tell. */
static bool check_together(request_reader *reader) {
    const serve_request *const request = reader->request;
    const int64_t choices = request->prompt_count * request->n;
    const bool continued = request->state_name[0] || request->state.data;
    serve_error *const error = reader->error;
    if (request->prompt_count == 0)
        return serve_fail(error, 400, "missing_required_parameter", "prompt", "prompt is missing");
    if (request->include_usage && !request->stream)
        return serve_fail(error, 400, NULL, "stream_options", "stream_options: only with \"stream\": true");
    if (request->return_name[0] && choices != 1)
        return serve_fail(error, 400, NULL, "return_state",
                          "return_state: one name cannot hold the states of %lld completions", (long long)choices);
    if (continued && request->echo)
        return serve_fail(error, 400, NULL, "echo", "echo: a state does not hold the text that it was made of");
    return true;
}

json_t *serve_json_object(const char *body, size_t size, serve_error *error) {
    json_error_t where;
    json_t *const object = json_loadb(body, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (json_is_object(object))
        return object;
    if (size == 0)
        serve_fail(error, 400, NULL, NULL, "the body is empty: it must be a JSON object");
    else if (object)
        serve_fail(error, 400, NULL, NULL, "the body is %s instead of a JSON object", kind_of(object));
    else
        serve_fail(error, 400, NULL, NULL, "the body is not JSON: %s (line %d, column %d)", where.text, where.line,
                   where.column);
    json_decref(object);
    return NULL;
}

bool serve_request_parse(const char *body, size_t size, const serve_limits *limits, serve_request *request,
                         serve_error *error) {
    *request = (serve_request){.n = 1, .max_tokens = 16, .logprobs = -1, .sampling = psk_sampling_default()};
    request->sampling.temperature = 1; /* as the protocol has it */
    json_t *const object = serve_json_object(body, size, error);
    request_reader reader = {.limits = limits, .request = request, .error = error};
    bool good = object && check_names(object, error);
    for (size_t i = 0; i < FIELD_COUNT && good; i++) {
        const json_t *const value = json_object_get(object, fields[i].name);
        good = !value || json_is_null(value) || read_field(&reader, &fields[i], value);
    }
    json_decref(object);
    return good && check_together(&reader);
}

void serve_request_free(serve_request *request) {
    for (int64_t i = 0; i < request->prompt_count; i++) {
        free(request->prompts[i].text);
        free(request->prompts[i].tokens);
    }
    for (int64_t i = 0; i < request->stop_count; i++)
        free(request->stops[i]);
    free(request->model);
    free(request->prompts);
    free(request->stops);
    free(request->biases);
    free(request->state.data);
    *request = (serve_request){.n = 0};
}
