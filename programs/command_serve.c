/* polysketch serve: a model behind HTTP, in the shapes of OpenAI's completions, with a page to talk to it. */
#include "model_options.h"
#include "terminal.h"

#if PSK_WITH_MICROHTTPD

#include "serve_http.h"
#include "serve_text.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEY_VARIABLE "POLYSKETCH_API_KEY"
#define SPARE_CONNECTIONS                                                                                              \
    64 /* beside those of requests that compute or wait: for the ones that are refused, and metrics */
#define TICK            50000000L /* nanoseconds between two looks for a signal */
#define REQUEST_PROMPTS 1024
#define TEXT_BYTES      ((int64_t)64 << 20) /* of a request's body, beside a state */

typedef struct serve_settings {
    const char *model, *name, *host, *api_key, *cors_origin, *log;
    int64_t port, sessions, queue, cache, states, prompt_tokens, max_tokens;
    int64_t body; /* 0: what a state of the model needs */
    double request_seconds, idle_seconds, drain_seconds;
    device_options device;
} serve_settings;

typedef struct serving {
    const serve_settings *settings;
    psk_device *device;
    psk_model *model;
    psk_tokenizer *tokenizer;
    serve_metrics metrics;
    serve_states *states;
    serve_engine *engine;
    serve_http *http;
    FILE *log;
    const char *api_key; /* NULL: none is asked for */
    int64_t body_bytes;
    char *name;
} serving;

/* An empty key is a variable that somebody forgot to set: serving everybody would be the wrong answer to that. */
static bool find_key(serving *server) {
    const serve_settings *const s = server->settings;
    server->api_key = s->api_key ? s->api_key : getenv(KEY_VARIABLE);
    if (!server->api_key || *server->api_key)
        return true;
    say_error("serve", "%s is empty: give it a key, or leave it out for a server that asks for none",
              s->api_key ? "--api-key" : KEY_VARIABLE);
    return false;
}

/* The last part of the model's path, for clients have to name the model. */
static char *last_part(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return serve_text_copy(path + start, end - start);
}

static bool make_name(serving *server) {
    const serve_settings *const s = server->settings;
    server->name = s->name ? serve_text_copy(s->name, strlen(s->name)) : last_part(s->model);
    if (!server->name)
        say_error("serve", "out of memory");
    return server->name != NULL;
}

static bool open_log(serving *server) {
    const char *const path = server->settings->log;
    if (strcmp(path, "none") == 0)
        return true;
    server->log = strcmp(path, "-") == 0 ? stdout : fopen(path, "a");
    if (!server->log)
        say_error("serve", "cannot write the access log %s", path);
    return server->log != NULL;
}

static psk_status load(serving *server) {
    char path[PATH_CAPACITY];
    const char *const folder = model_folder(server->settings->model, path);
    psk_status status = device_options_create(&server->settings->device, &server->device);
    if (status == PSK_OK)
        status = psk_model_load(server->device, folder, &server->model);
    if (status == PSK_OK)
        status = psk_tokenizer_load(folder, &server->tokenizer);
    if (status == PSK_OK)
        status = psk_tokenizer_check(server->tokenizer, psk_model_get_config(server->model)->vocab_size);
    return status;
}

/* In base64, at most; of a state that grows with the text, after as much of it as the model was trained on. */
static int64_t state_text_bytes(const psk_model *model) {
    const bool grows = psk_session_bytes_at(model, INT32_MAX) != psk_session_bytes_at(model, 1);
    const int64_t tokens = grows ? psk_model_get_config(model)->n_positions : INT32_MAX;
    return (psk_session_file_bytes_at(model, tokens) + 2) / 3 * 4;
}

/* A state that the server sends has to come back in a request. */
static void limit_bodies(serving *server) {
    const int64_t given = server->settings->body, state = state_text_bytes(server->model);
    char most[FORMAT_CAPACITY], limit[FORMAT_CAPACITY];
    server->body_bytes = given ? given : TEXT_BYTES + state;
    if (server->body_bytes < state)
        fprintf(stderr, "states of up to %s in a reply are larger than --max-body, %s: clients cannot send them back\n",
                format_bytes(most, state), format_bytes(limit, given));
}

static bool start_engine(serving *server) {
    const serve_settings *const settings = server->settings;
    serve_error error = {0};
    const serve_engine_options options = {.model = server->model,
                                          .tokenizer = server->tokenizer,
                                          .metrics = &server->metrics,
                                          .sessions = settings->sessions,
                                          .queue = settings->queue,
                                          .cache_bytes = settings->cache};
    server->states = serve_states_create(settings->states);
    server->engine = server->states ? serve_engine_create(&options, &error) : NULL;
    if (!server->engine)
        say_error("serve", "%s", error.http ? error.message : "out of memory");
    return server->engine != NULL;
}

static bool start_http(serving *server, int *port) {
    const serve_settings *const s = server->settings;
    const serve_http_options options = {
        .model = server->model,
        .tokenizer = server->tokenizer,
        .engine = server->engine,
        .states = server->states,
        .metrics = &server->metrics,
        .limits = {.vocab_size = psk_model_get_config(server->model)->vocab_size,
                   .prompts = REQUEST_PROMPTS,
                   .prompt_tokens = s->prompt_tokens,
                   .max_tokens = s->max_tokens,
                   .choices = s->sessions},
        .name = server->name,
        .host = s->host,
        .port = s->port,
        .api_key = server->api_key,
        .cors_origin = s->cors_origin,
        .body_bytes = server->body_bytes,
        .connections = s->sessions + s->queue + SPARE_CONNECTIONS,
        .request_seconds = s->request_seconds,
        .idle_seconds = s->idle_seconds,
        .log = server->log,
    };
    server->http = serve_http_create(&options, port);
    return server->http != NULL;
}

static void say_hello(const serving *server, int port) {
    const serve_settings *const s = server->settings;
    char parameters[FORMAT_CAPACITY], small[FORMAT_CAPACITY], large[FORMAT_CAPACITY], cache[FORMAT_CAPACITY];
    const bool six = strchr(s->host, ':') != NULL;
    fprintf(stderr, "%s: %s parameters on %s\n", server->name,
            format_count(parameters, (double)psk_model_parameter_count(server->model)),
            psk_device_description(server->device));
    fprintf(stderr,
            "state of one completion: %s after 1k tokens, %s after 1M; %lld completions at once, %lld requests may "
            "wait; prefix cache: %s\n",
            format_bytes(small, psk_session_bytes_at(server->model, 1024)),
            format_bytes(large, psk_session_bytes_at(server->model, 1048576)), (long long)s->sessions,
            (long long)s->queue, format_bytes(cache, s->cache));
    fprintf(stderr, "listening on http://%s%s%s:%d  (Ctrl-C ends it)\n", six ? "[" : "", s->host, six ? "]" : "", port);
}

/* Until a signal; then the requests that are there get drain_seconds to end. */
static void serve(serving *server) {
    const struct timespec tick = {.tv_nsec = TICK};
    while (!stop_requested())
        nanosleep(&tick, NULL);
    serve_http_quiesce(server->http);
    fprintf(stderr, "finishing the requests that are there, at most %.0f s (Ctrl-C again: at once)\n",
            server->settings->drain_seconds);
    const double end = seconds_now() + server->settings->drain_seconds;
    while (!serve_engine_drain(server->engine) && seconds_now() < end)
        nanosleep(&tick, NULL);
}

static exit_code run(serving *server) {
    int port = 0;
    if (!find_key(server))
        return EXIT_USAGE;
    if (!make_name(server) || !open_log(server))
        return EXIT_FAILED;
    const psk_status status = load(server);
    if (status != PSK_OK)
        return say_status("serve", status);
    limit_bodies(server);
    if (!start_engine(server) || !start_http(server, &port))
        return EXIT_FAILED;
    stop_on_signals();
    signal(SIGPIPE, SIG_IGN);
    say_hello(server, port);
    serve(server);
    return EXIT_DONE;
}

/* The engine ends first: connections wait for it. */
static void release(serving *server) {
    if (server->engine)
        serve_engine_stop(server->engine);
    serve_http_free(server->http);
    serve_engine_free(server->engine);
    serve_states_free(server->states);
    psk_tokenizer_free(server->tokenizer);
    psk_model_free(server->model);
    psk_device_free(server->device);
    if (server->log && server->log != stdout)
        fclose(server->log);
    free(server->name);
}

exit_code command_serve(int argc, char **argv) {
    serve_settings s = {.host = "127.0.0.1",
                        .port = 8080,
                        .log = "-",
                        .sessions = 32,
                        .queue = 256,
                        .cache = (int64_t)1 << 30,
                        .states = (int64_t)1 << 30,
                        .prompt_tokens = 1 << 20,
                        .max_tokens = 65536,
                        .request_seconds = 600,
                        .idle_seconds = 60,
                        .drain_seconds = 30,
                        .device = device_options_default()};
    const command_option model[] = {
        {"model", OPTION_TEXT, "DIR", MODEL_HELP, .target = &s.model, .required = true},
        {"name", OPTION_TEXT, "NAME", "of the model, as clients know it", .target = &s.name,
         .fallback = "the last part of DIR"},
    };
    const command_option access[] = {
        {"host", OPTION_TEXT, "ADDRESS", "where to listen; 0.0.0.0: to other machines, too", .target = &s.host},
        {"port", OPTION_COUNT, NULL, "0: any that is free", .target = &s.port, .low = 0, .high = 65535},
        {"api-key", OPTION_TEXT, "KEY", "what clients must know; else the environment variable " KEY_VARIABLE,
         .target = &s.api_key, .fallback = "none"},
        {"cors-origin", OPTION_TEXT, "ORIGIN", "pages from there may use the server, '*': from everywhere",
         .target = &s.cors_origin, .fallback = "only its own page"},
        {"log", OPTION_TEXT, "FILE", "a JSON line for each request; -: standard output; none", .target = &s.log},
    };
    const command_option limits[] = {
        {"sessions", OPTION_COUNT, NULL, "completions computed at once", .target = &s.sessions, .low = 1, .high = 4096},
        {"queue", OPTION_COUNT, NULL, "requests that may wait; more are answered 429", .target = &s.queue, .low = 1,
         .high = 65536},
        {"cache", OPTION_LENGTH, "BYTES", "memory for states at beginnings of prompts; 0: none", .target = &s.cache,
         .low = 0, .high = 1e15, .fallback = "1G"},
        {"state-memory", OPTION_LENGTH, "BYTES", "for states that clients store", .target = &s.states, .low = 0,
         .high = 1e15, .fallback = "1G"},
        {"max-body", OPTION_LENGTH, "BYTES", "of a request", .target = &s.body, .low = 1024, .high = 1e12,
         .fallback = "64M and a state"},
        {"max-prompt", OPTION_LENGTH, "TOKENS", "in all prompts of a request", .target = &s.prompt_tokens, .low = 1,
         .high = 1e9, .fallback = "1M"},
        {"max-tokens", OPTION_LENGTH, "TOKENS", "of a completion", .target = &s.max_tokens, .low = 1, .high = 1e9},
        {"request-seconds", OPTION_REAL, NULL, "of a request in all, waiting included", .target = &s.request_seconds,
         .low = 0.1, .high = 1e7},
        {"idle-seconds", OPTION_REAL, NULL, "after which a connection is closed on which nothing moves",
         .target = &s.idle_seconds, .low = 2, .high = 1e6},
        {"drain-seconds", OPTION_REAL, NULL, "for what is running when the server is told to end",
         .target = &s.drain_seconds, .low = 0, .high = 1e6},
    };
    command_option device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Model", model), OPTION_GROUP("Access", access),
                                   OPTION_GROUP("Limits", limits), device_option_group(&s.device, device)};
    const command_usage usage = {
        .command = "serve",
        .synopsis = "--model DIR [options]",
        .summary =
            "Answers HTTP requests in the shapes of OpenAI's completions, and shows a page to talk to the model at\n"
            "http://127.0.0.1:8080/. Every field and route: docs/server.md.",
        .examples = "  polysketch serve --model run\n"
                    "  polysketch serve --model run --host 0.0.0.0 --port 80 --api-key \"$KEY\" --log access.jsonl\n"
                    "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"It was\", \"max_tokens\": 50}'",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code)) {
        serving *const whole = calloc(1, sizeof *whole);
        if (whole) {
            whole->settings = &s;
            code = run(whole);
            release(whole);
        } else
            code = EXIT_FAILED;
        free(whole);
    }
    options_free(&line);
    return code;
}

#else

exit_code command_serve(int argc, char **argv) {
    (void)argc, (void)argv;
    say_error("serve", "this program was built without libmicrohttpd; install libmicrohttpd-dev and build it again");
    return EXIT_FAILED;
}

#endif
