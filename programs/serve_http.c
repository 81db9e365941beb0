#include "serve_call.h"

#include "serve_text.h"
#include "terminal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define STACK_BYTES  (1 << 20) /* of a connection's thread: JSON may be nested some thousand levels deep */
#define LAST_SECONDS 5         /* for answers on their way when the server ends */

/* ---------------------------------------------------------------------------------------------------------- answers
 */

static void add_cors(const serve_call *call, struct MHD_Response *response) {
    const char *const origin = call->http->options.cors_origin;
    if (!origin)
        return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Vary", "Origin");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, PUT, POST, DELETE");
    MHD_add_response_header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
}

enum MHD_Result serve_send_response(serve_call *call, unsigned status, struct MHD_Response *response) {
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "X-Request-Id", call->id);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (status == 429 || status == 503)
        MHD_add_response_header(response, "Retry-After", "1");
    if (status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (call->closes)
        MHD_add_response_header(response, "Connection", "close");
    add_cors(call, response);
    call->status = status;
    const enum MHD_Result result = MHD_queue_response(call->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result serve_send(serve_call *call, unsigned status, const char *type, char *text, size_t size) {
    static char none[] = "out of memory\n";
    struct MHD_Response *const response =
        text ? MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE)
             : MHD_create_response_from_buffer(sizeof none - 1, none, MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", text ? type : "text/plain");
    return serve_send_response(call, text ? status : 503, response);
}

enum MHD_Result serve_send_json(serve_call *call, unsigned status, json_t *object) {
    char *const text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return serve_send(call, status, "application/json", text, text ? strlen(text) : 0);
}

enum MHD_Result serve_send_error(serve_call *call, const serve_error *error) {
    return serve_send_json(call, (unsigned)error->http, serve_error_json(error));
}

bool serve_client_is_gone(const serve_call *call) {
    const union MHD_ConnectionInfo *const info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd closed = {.fd = info ? info->connect_fd : -1, .events = POLLRDHUP};
    return !info || (poll(&closed, 1, 0) > 0 && (closed.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

void serve_may_wait(const serve_call *call, bool wait) {
    MHD_set_connection_option(call->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                              wait ? 0U : (unsigned)call->http->options.idle_seconds);
}

/* ------------------------------------------------------------------------------------------------------------- calls
 */

static serve_call *call_create(serve_http *http, struct MHD_Connection *connection, const char *method,
                               const char *path) {
    serve_call *const call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->http = http;
    call->connection = connection;
    call->started = seconds_now();
    snprintf(call->method, sizeof call->method, "%s", method);
    snprintf(call->path, sizeof call->path, "%s", path);
    snprintf(call->id, sizeof call->id, "cmpl-%08x%08llx", (unsigned)http->instance,
             (unsigned long long)atomic_fetch_add(&http->count, 1));
    serve_admit(call, method, path);
    return call;
}

static enum MHD_Result answer(serve_call *call) {
    call->answered = true;
    atomic_fetch_add(&call->http->answers, 1);
    if (strcmp(call->method, "OPTIONS") == 0 && call->http->options.cors_origin)
        return serve_send(call, 204, "text/plain", calloc(1, 1), 0);
    return call->error.http ? serve_send_error(call, &call->error) : call->route->answer(call);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *size, void **place) {
    (void)version;
    serve_call *call = *place;
    if (!call) {
        *place = call = call_create(user, connection, method, path);
        return !call ? MHD_NO : call->closes ? answer(call) : MHD_YES;
    }
    if (*size == 0)
        return answer(call);
    const enum MHD_Result result = serve_take_body(call, data, *size);
    *size = 0;
    return result;
}

/* --------------------------------------------------------------------------------------------------------------- log
 */

static const char *client_address(const serve_call *call, char *text, socklen_t size) {
    const union MHD_ConnectionInfo *const info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *const address = info ? info->client_addr : NULL;
    const void *const number = !address ? NULL
                               : address->sa_family == AF_INET
                                   ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
                                   : &((const struct sockaddr_in6 *)address)->sin6_addr;
    return number && inet_ntop(address->sa_family, number, text, size) ? text : "";
}

static void add_job(json_t *line, serve_job *job, double started) {
    pthread_mutex_lock(&job->lock);
    const serve_usage usage = job->ended ? job->usage : (serve_usage){0};
    const bool ended = job->ended;
    const double first = job->first_text;
    pthread_mutex_unlock(&job->lock);
    json_object_set_new(line, "cancelled", json_boolean(atomic_load(&job->cancelled)));
    if (first > 0)
        json_object_set_new(line, "first_text_seconds", json_real(first - started));
    if (!ended)
        return;
    json_object_set_new(line, "prompt_tokens", json_integer(usage.prompt_tokens));
    json_object_set_new(line, "cached_tokens", json_integer(usage.cached_tokens));
    json_object_set_new(line, "completion_tokens", json_integer(usage.completion_tokens));
}

static void write_log(serve_call *call) {
    FILE *const log = call->http->options.log;
    char when[40], address[INET6_ADDRSTRLEN];
    const time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *const line =
        json_pack("{s:s, s:s, s:s, s:o*, s:o*, s:i, s:f}", "time", when, "id", call->id, "client",
                  client_address(call, address, sizeof address), "method", serve_text_json(call->method), "path",
                  serve_text_json(call->path), "status", (int)call->status, "seconds", seconds_now() - call->started);
    if (call->job && line)
        add_job(line, call->job, call->started);
    char *const text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(line);
    pthread_mutex_lock(&call->http->log_lock);
    if (text) {
        fprintf(log, "%s\n", text);
        fflush(log);
    }
    pthread_mutex_unlock(&call->http->log_lock);
    free(text);
}

/* However it ended: answered, or the client went away. */
static void on_completed(void *user, struct MHD_Connection *connection, void **place,
                         enum MHD_RequestTerminationCode code) {
    (void)user, (void)connection;
    serve_call *const call = *place;
    if (!call)
        return;
    if (call->job && (code != MHD_REQUEST_TERMINATED_COMPLETED_OK || !call->over))
        atomic_store(&call->job->cancelled, true);
    atomic_fetch_add(&call->http->options.metrics->responses[call->status % SERVE_HTTP_CODES], 1);
    if (call->http->options.log)
        write_log(call);
    for (serve_piece *piece = call->pieces, *next; piece; piece = next) {
        next = piece->next;
        serve_piece_free(piece);
    }
    serve_job_release(call->job);
    if (call->answered)
        atomic_fetch_sub(&call->http->answers, 1);
    free(call->event);
    free(call->body);
    free(call);
    *place = NULL;
}

/* ------------------------------------------------------------------------------------------------------------ daemon
 */

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr) != 0;
}

static struct addrinfo *resolve(const serve_http_options *options) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *addresses = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", (int)options->port);
    const int code = getaddrinfo(options->host, port, &hints, &addresses);
    if (code == 0)
        return addresses;
    say_error("serve", "--host %s: %s", options->host, gai_strerror(code));
    return NULL;
}

static struct MHD_Daemon *start_daemon(serve_http *http, const struct addrinfo *address) {
    const serve_http_options *const options = &http->options;
    const unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
                           MHD_USE_ITC | (address->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    return MHD_start_daemon(flags, (uint16_t)options->port, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR,
                            address->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)options->connections, MHD_OPTION_CONNECTION_TIMEOUT,
                            (unsigned)options->idle_seconds, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES,
                            MHD_OPTION_UNESCAPE_CALLBACK, serve_unescape, NULL, MHD_OPTION_END);
}

serve_http *serve_http_create(const serve_http_options *options, int *port) {
    serve_http *const http = calloc(1, sizeof *http);
    struct addrinfo *const addresses = http ? resolve(options) : NULL;
    if (!addresses) {
        free(http);
        return NULL;
    }
    http->options = *options;
    http->loopback = is_loopback(addresses->ai_addr);
    http->started = seconds_now();
    if (getrandom(&http->instance, sizeof http->instance, 0) < 0)
        http->instance = (uint64_t)time(NULL);
    pthread_mutex_init(&http->log_lock, NULL);
    errno = 0;
    http->daemon = start_daemon(http, addresses);
    const int code = errno;
    freeaddrinfo(addresses);
    const union MHD_DaemonInfo *const info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (info) {
        *port = info->port;
        return http;
    }
    say_error("serve", "cannot listen on %s, port %d: %s", options->host, (int)options->port, strerror(code));
    serve_http_free(http);
    return NULL;
}

void serve_http_quiesce(serve_http *http) {
    const MHD_socket socket = MHD_quiesce_daemon(http->daemon);
    if (socket != MHD_INVALID_SOCKET)
        close(socket);
}

void serve_http_free(serve_http *http) {
    if (!http)
        return;
    const double end = seconds_now() + LAST_SECONDS;
    while (atomic_load(&http->answers) > 0 && seconds_now() < end)
        nanosleep(&(struct timespec){.tv_nsec = 10000000L}, NULL);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    pthread_mutex_destroy(&http->log_lock);
    free(http);
}
