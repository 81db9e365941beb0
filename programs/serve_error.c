#include "serve_error.h"

#include <stdarg.h>
#include <stdio.h>

bool serve_fail(serve_error *error, int http, const char *code, const char *param, const char *format, ...) {
    if (error->http)
        return false;
    error->http = http;
    error->code = code;
    snprintf(error->param, sizeof error->param, "%s", param ? param : "");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return false;
}

bool serve_fail_status(serve_error *error, psk_status status, const char *param) {
    const bool client = status == PSK_ERROR_ARGUMENT || status == PSK_ERROR_FORMAT;
    return serve_fail(error,
                      client                       ? 400
                      : status == PSK_ERROR_MEMORY ? 503
                                                   : 500,
                      NULL, param, "%s", psk_error_message());
}

static const char *error_type(int http) {
    if (http == 429)
        return "rate_limit_error";
    return http >= 500 ? "server_error" : "invalid_request_error";
}

/* A message that was cut in the middle of a character, or that quotes bytes which are none, as far as it is UTF-8. */
static json_t *message_json(const char *message) {
    for (size_t size = 0;; size++)
        if (!message[size] || (message[size] & 0x80)) {
            json_t *const whole = json_string(message);
            return whole ? whole : json_stringn(message, size);
        }
}

json_t *serve_error_json(const serve_error *error) {
    return json_pack("{s:{s:o*, s:s, s:s?, s:s?}}", "error", "message", message_json(error->message), "type",
                     error_type(error->http), "param", error->param[0] ? error->param : NULL, "code", error->code);
}
