/* POST /v1/completions: from the body to a job, and from the job's pieces to a reply or a stream. */
#include "serve_call.h"

#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define LOOK_SECONDS 0.1 /* how often a waiting thread looks whether its client is still there */
#define SIGN_PART    4   /* a stream gives a sign of life this many times within the time of an idle connection */

/* ------------------------------------------------------------------------------------------------------------ request
 */

/* An empty prompt becomes end-of-text, for that is what stands before every document; behind a state there has to be
 * something. */
static bool fill_empty(const serve_call *call, const serve_request *request, serve_prompt *prompt, serve_error *error) {
    const int32_t end = psk_tokenizer_end_of_text(call->http->options.tokenizer);
    if (request->state_name[0] || request->state.data)
        return serve_fail(error, 400, NULL, "prompt", "prompt: at least one token must follow a state");
    if (end < 0)
        return serve_fail(error, 400, NULL, "prompt", "prompt: must not be empty: this vocabulary has no end-of-text");
    free(prompt->tokens);
    prompt->tokens = malloc(sizeof *prompt->tokens);
    if (!prompt->tokens)
        return serve_fail(error, 503, NULL, NULL, "out of memory");
    prompt->tokens[0] = end;
    prompt->count = 1;
    return true;
}

static bool encode(const serve_call *call, serve_prompt *prompt, serve_error *error) {
    int32_t *tokens;
    const psk_status status =
        psk_tokenizer_encode(call->http->options.tokenizer, prompt->text, prompt->size, &tokens, &prompt->count);
    if (status != PSK_OK)
        return serve_fail_status(error, status, "prompt");
    const size_t size = (size_t)prompt->count * sizeof *tokens;
    prompt->tokens = malloc(size + 1);
    if (prompt->tokens && size)
        memcpy(prompt->tokens, tokens, size);
    psk_buffer_free(tokens);
    return prompt->tokens || serve_fail(error, 503, NULL, NULL, "out of memory");
}

static bool make_tokens(const serve_call *call, serve_request *request, serve_error *error) {
    const int64_t limit = call->http->options.limits.prompt_tokens;
    int64_t total = 0;
    for (int64_t i = 0; i < request->prompt_count; i++) {
        serve_prompt *const prompt = &request->prompts[i];
        if (prompt->text && !encode(call, prompt, error))
            return false;
        if (prompt->count == 0 && !fill_empty(call, request, prompt, error))
            return false;
        total += prompt->count;
    }
    return total <= limit || serve_fail(error, 400, "context_length_exceeded", "prompt",
                                        "prompt: %lld tokens are more than this server's limit of %lld",
                                        (long long)total, (long long)limit);
}

static bool check_model(const serve_call *call, const serve_request *request, serve_error *error) {
    const char *const name = call->http->options.name;
    return !request->model || strcmp(request->model, name) == 0 ||
           serve_fail(error, 404, "model_not_found", "model", "model: \"%.80s\" is not here; this server has \"%s\"",
                      request->model, name);
}

/* A seed of its own for who gave none: reported with the reply. */
static void make_seed(serve_request *request) {
    uint64_t seed = 0;
    if (!request->seeded && getrandom(&seed, sizeof seed, 0) > 0)
        request->sampling.seed = seed >> 11; /* a number that every JSON reader holds exactly */
}

static bool complete_request(const serve_call *call, serve_request *request, serve_error *error) {
    const int64_t V = psk_model_get_config(call->http->options.model)->vocab_size;
    const psk_status status = psk_sampling_check(&request->sampling, V);
    if (status != PSK_OK)
        return serve_fail_status(error, status, NULL);
    make_seed(request);
    return check_model(call, request, error) && make_tokens(call, request, error);
}

static bool submit(serve_call *call, serve_request *request, serve_error *error) {
    const serve_http_options *const options = &call->http->options;
    serve_state *state = NULL;
    if (request->state_name[0] && !(state = serve_states_get(options->states, request->state_name, error)))
        return false;
    call->job = serve_job_create(request);
    if (!call->job) {
        serve_state_release(state);
        return serve_fail(error, 503, NULL, NULL, "out of memory");
    }
    call->job->state = state;
    call->job->deadline = call->job->submitted + options->request_seconds;
    return serve_engine_submit(options->engine, call->job, error);
}

/* ------------------------------------------------------------------------------------------------------------- reply
 */

static bool keep_state(serve_call *call, const serve_bytes *state, int64_t tokens, serve_error *error) {
    const char *const name = call->job->request.return_name;
    return !state->data || !name[0] || serve_states_put(call->http->options.states, name, state, tokens, error);
}

/* Waits for what comes next. NULL: nothing yet, or the end (call->over). */
static serve_piece *take(serve_call *call, bool *gone) {
    bool ended = false;
    serve_piece *const pieces = serve_job_take(call->job, LOOK_SECONDS, &ended);
    const double now = seconds_now();
    call->over = !pieces && ended;
    *gone = !call->over && now - call->looked >= LOOK_SECONDS && serve_client_is_gone(call);
    if (now - call->looked >= LOOK_SECONDS)
        call->looked = now;
    if (*gone)
        atomic_store(&call->job->cancelled, true);
    return pieces;
}

static bool add_pieces(serve_call *call, serve_piece *pieces, serve_choice *choices, serve_error *error) {
    bool good = true;
    for (serve_piece *piece = pieces, *next; piece; piece = next) {
        next = piece->next;
        good =
            good && keep_state(call, &piece->state, piece->session_tokens, error) &&
            (serve_choice_add(&choices[piece->choice], piece) || serve_fail(error, 503, NULL, NULL, "out of memory"));
        serve_piece_free(piece);
    }
    return good;
}

/* All pieces until the end. False: the client has gone, or *error. */
static bool collect(serve_call *call, serve_choice *choices, serve_error *error) {
    bool gone = false;
    while (!call->over && !gone && !error->http)
        add_pieces(call, take(call, &gone), choices, error);
    if (call->over && call->job->error.http)
        *error = call->job->error;
    return call->over && !error->http;
}

static enum MHD_Result send_whole(serve_call *call) {
    const serve_request *const request = &call->job->request;
    const int64_t count = request->prompt_count * request->n;
    serve_choice *const choices = calloc((size_t)count, sizeof *choices);
    serve_error error = {0};
    char *text = NULL;
    serve_may_wait(call, true);
    const bool good = choices && collect(call, choices, &error);
    serve_may_wait(call, false);
    if (good)
        text = serve_reply_whole(&call->reply, choices);
    for (int64_t i = 0; i < count && choices; i++)
        serve_choice_free(&choices[i]);
    free(choices);
    if (good)
        return serve_send(call, 200, "application/json", text, text ? strlen(text) : 0);
    return error.http ? serve_send_error(call, &error) : MHD_NO;
}

/* ------------------------------------------------------------------------------------------------------------ stream
 */

static void set_event(serve_call *call, char *text) {
    free(call->event);
    call->event = text;
    call->event_at = 0;
    call->event_size = text ? strlen(text) : 0;
    call->waiting_since = seconds_now();
}

static char *piece_event(serve_call *call) {
    serve_piece *const piece = call->pieces;
    serve_error error = {0};
    call->pieces = piece->next;
    char *const text = keep_state(call, &piece->state, piece->session_tokens, &error)
                           ? serve_reply_event(&call->reply, piece)
                           : serve_reply_last_event(&call->reply, &error);
    serve_piece_free(piece);
    if (error.http)
        call->over = true;
    return text;
}

/* The next event; false: the client has gone, or there is no memory. */
static bool next_event(serve_call *call) {
    const double patience = call->http->options.idle_seconds / SIGN_PART;
    bool gone = false;
    while (!call->pieces && !call->over && !gone) {
        call->pieces = take(call, &gone);
        if (!call->pieces && !call->over && seconds_now() - call->waiting_since > patience) {
            set_event(call, strdup(": waiting\n\n"));
            return call->event != NULL;
        }
    }
    if (gone)
        return false;
    set_event(call, call->pieces ? piece_event(call) : serve_reply_last_event(&call->reply, &call->job->error));
    return call->event != NULL;
}

static ssize_t read_stream(void *user, uint64_t position, char *buffer, size_t capacity) {
    (void)position;
    serve_call *const call = user;
    if (call->event_at == call->event_size) {
        if (call->over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!next_event(call))
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    const size_t left = call->event_size - call->event_at, size = left < capacity ? left : capacity;
    memcpy(buffer, call->event + call->event_at, size);
    call->event_at += size;
    return (ssize_t)size;
}

static enum MHD_Result send_stream(serve_call *call) {
    struct MHD_Response *const response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, call, NULL);
    if (!response)
        return MHD_NO;
    call->waiting_since = seconds_now();
    MHD_add_response_header(response, "Content-Type", "text/event-stream");
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* proxies are not to collect the events */
    return serve_send_response(call, 200, response);
}

enum MHD_Result serve_completions(serve_call *call) {
    serve_request request;
    serve_error error = {0};
    if (!serve_request_parse(call->body, call->size, &call->http->options.limits, &request, &error) ||
        !complete_request(call, &request, &error) || !submit(call, &request, &error)) {
        serve_request_free(&request);
        serve_job_release(call->job);
        call->job = NULL;
        return serve_send_error(call, &error);
    }
    free(call->body);
    call->body = NULL;
    call->reply = (serve_reply){.job = call->job,
                                .tokenizer = call->http->options.tokenizer,
                                .id = call->id,
                                .model = call->http->options.name,
                                .created = time(NULL)};
    return call->job->request.stream ? send_stream(call) : send_whole(call);
}
