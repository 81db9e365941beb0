#include "serve_call.h"

#include <stdlib.h>
#include <string.h>

#define DISCARD_LIMIT 4     /* times the largest body: so much more is read before a connection is just closed */
#define ZERO_BYTE     "%00" /* in a path as it was sent */

static const char *header(const serve_call *call, const char *name) {
    return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

/* ---------------------------------------------------------------------------------------------------------------- form
 */

/* A zero byte stays as it is written, for it would end the path before its end. */
size_t serve_unescape(void *user, struct MHD_Connection *connection, char *text) {
    (void)user, (void)connection;
    return strstr(text, ZERO_BYTE) ? strlen(text) : MHD_http_unescape(text);
}

static bool check_path(serve_call *call, const char *path) {
    return !strstr(path, ZERO_BYTE) ||
           serve_fail(&call->error, 400, NULL, NULL, "the path has a zero byte (%s): nothing here is called so",
                      ZERO_BYTE);
}

typedef struct framing {
    int hosts, lengths, codings;
} framing;

static enum MHD_Result count_header(void *user, enum MHD_ValueKind kind, const char *name, const char *value) {
    (void)kind, (void)value;
    framing *const found = user;
    found->hosts += strcasecmp(name, "Host") == 0;
    found->lengths += strcasecmp(name, "Content-Length") == 0;
    found->codings += strcasecmp(name, "Transfer-Encoding") == 0;
    return MHD_YES;
}

/* A request whose end or receiver can be read in two ways: a proxy may have read it in the other one, and what it let
 * pass as a body would be taken for the next request. */
static bool check_framing(serve_call *call) {
    framing found = {0};
    MHD_get_connection_values(call->connection, MHD_HEADER_KIND, count_header, &found);
    if (found.hosts <= 1 && found.lengths + found.codings <= 1)
        return true;
    call->closes = true;
    return serve_fail(&call->error, 400, NULL, NULL,
                      "%d Host, %d Content-Length and %d Transfer-Encoding headers: there may be one Host, and one of "
                      "the other two",
                      found.hosts, found.lengths, found.codings);
}

/* ----------------------------------------------------------------------------------------------------------------- who
 */

/* In a time that depends on `given` alone. */
static bool same_secret(const char *given, const char *secret) {
    const size_t n = strlen(given), m = strlen(secret);
    unsigned different = n != m;
    for (size_t i = 0; i < n; i++)
        different |= (unsigned char)given[i] ^ (unsigned char)secret[i % (m + 1)];
    return different == 0;
}

static bool check_key(serve_call *call) {
    static const char scheme[] = "Bearer ";
    const char *const key = call->http->options.api_key, *const given = header(call, "Authorization");
    if (!key)
        return true;
    if (!given || strncasecmp(given, scheme, sizeof scheme - 1) != 0)
        return serve_fail(&call->error, 401, "invalid_api_key", NULL,
                          "this server wants its API key: Authorization: Bearer KEY");
    return same_secret(given + sizeof scheme - 1, key) ||
           serve_fail(&call->error, 401, "invalid_api_key", NULL, "this is not the server's API key");
}

/* "localhost:8080" -> whether that name means this machine, whatever a name server may say of others. */
static bool is_local_name(const char *host, const char *own) {
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    const size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == length && strncasecmp(host, names[i], length) == 0)
            return true;
    return strlen(own) == length && strncasecmp(host, own, length) == 0;
}

/* A page from elsewhere must not use a server that it was not told of: neither directly nor through a name of its own
 * that leads to this machine. */
static bool check_origin(serve_call *call) {
    const serve_http_options *const options = &call->http->options;
    const char *const host = header(call, "Host"), *const origin = header(call, "Origin");
    if (call->http->loopback && host && !is_local_name(host, options->host))
        return serve_fail(&call->error, 403, "wrong_host", NULL,
                          "the server answers to localhost only, not to the name \"%.80s\"", host);
    if (!origin ||
        (options->cors_origin && (strcmp(options->cors_origin, "*") == 0 || strcmp(options->cors_origin, origin) == 0)))
        return true;
    const char *const name = strstr(origin, "://");
    return (name && host && strcasecmp(name + 3, host) == 0) ||
           serve_fail(&call->error, 403, "wrong_origin", NULL,
                      "pages from \"%.80s\" may not use this server; --cors-origin allows it", origin);
}

/* ---------------------------------------------------------------------------------------------------------------- size
 */

static int64_t discard_bytes(const serve_call *call) {
    return DISCARD_LIMIT * call->http->options.body_bytes;
}

static bool too_large(serve_call *call) {
    return serve_fail(&call->error, 413, "body_too_large", NULL,
                      "the body is larger than this server's limit of %lld bytes",
                      (long long)call->http->options.body_bytes);
}

static uint64_t announced_bytes(const serve_call *call) {
    const char *const length = header(call, "Content-Length");
    return length ? strtoull(length, NULL, 10) : 0;
}

static bool check_length(serve_call *call) {
    return announced_bytes(call) <= (uint64_t)call->http->options.body_bytes || too_large(call);
}

/* Whether to answer an error before the body: to who asks first, and to who would send more than is read in vain. */
static bool answers_early(const serve_call *call) {
    return call->error.http && (header(call, "Expect") || announced_bytes(call) > (uint64_t)discard_bytes(call));
}

void serve_admit(serve_call *call, const char *method, const char *path) {
    if (check_framing(call) && check_path(call, path))
        call->route = serve_route_find(method, path, &call->rest, &call->error);
    if (check_origin(call) && call->route && !call->route->open)
        check_key(call);
    check_length(call);
    call->closes = call->closes || answers_early(call);
}

static bool reserve(serve_call *call, size_t size) {
    if (size <= call->capacity)
        return true;
    const size_t capacity = 2 * size;
    char *const larger = realloc(call->body, capacity);
    if (!larger)
        return serve_fail(&call->error, 503, NULL, NULL, "out of memory");
    call->body = larger;
    call->capacity = capacity;
    return true;
}

/* A body that is not wanted is read all the same, or a client that is sending would not come to read the answer. */
enum MHD_Result serve_take_body(serve_call *call, const char *data, size_t size) {
    if (!call->error.http && call->size + size > (size_t)call->http->options.body_bytes)
        too_large(call);
    if (!call->error.http && reserve(call, call->size + size)) {
        memcpy(call->body + call->size, data, size);
        call->size += size;
        return MHD_YES;
    }
    call->discarded += size;
    return call->discarded <= (size_t)discard_bytes(call) ? MHD_YES : MHD_NO;
}
