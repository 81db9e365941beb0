/* What goes wrong with a request, in the words of OpenAI's protocol. */
#ifndef SERVE_ERROR_H
#define SERVE_ERROR_H

#include "command.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct serve_error {
    int http;          /* status: 400, 401, ...; 0: no error */
    const char *code;  /* "model_not_found", ...; NULL: none. A literal */
    char param[64];    /* the field that is wrong, as far as it fits; "": none */
    char message[640]; /* as far as it fits; quotes what clients wrote, which need not be UTF-8 */
} serve_error;

/* Fills in the error unless it holds one. param: NULL: none. Returns false, for `return serve_fail(...)`. */
#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
bool serve_fail(serve_error *error, int http, const char *code, const char *param, const char *format, ...);

/* The library's message for a status that is not PSK_OK: a value that it refuses is the client's fault (400), memory
 * that is not there a matter of load (503), all else the server's (500). */
bool serve_fail_status(serve_error *error, psk_status status, const char *param);

/* {"error": {"message", "type", "param", "code"}}; NULL without memory. */
json_t *serve_error_json(const serve_error *error);

#endif
