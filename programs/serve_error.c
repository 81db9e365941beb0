#include "serve_error.h"

#include "serve_text.h"

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

json_t *serve_error_json(const serve_error *error) {
    return json_pack("{s:{s:o*, s:s, s:o?, s:s?}}", "error", "message", serve_text_json(error->message), "type",
                     error_type(error->http), "param", error->param[0] ? serve_text_json(error->param) : NULL, "code",
                     error->code);
}
