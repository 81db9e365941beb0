#include "serve_step.h"

/* A step of all that failed among the layers leaves sessions in the middle of a token, which refuse every call
 * (ARGUMENT): that is no fault of their clients, who are told why the step failed. */
static void step_each(psk_session *const *sessions, int64_t count, const int32_t *tokens, int64_t V, float *logits,
                      psk_status all, serve_error *errors) {
    serve_error reason = {0};
    serve_fail_status(&reason, all, NULL);
    for (int64_t i = 0; i < count; i++) {
        const psk_status status = psk_session_step(&sessions[i], 1, &tokens[i], logits + i * V);
        if (status == PSK_ERROR_ARGUMENT && all != PSK_ERROR_ARGUMENT)
            errors[i] = reason;
        else if (status != PSK_OK)
            serve_fail_status(&errors[i], status, NULL);
    }
}

void serve_step(psk_session *const *sessions, int64_t count, const int32_t *tokens, int64_t V, float *logits,
                serve_error *errors) {
    for (int64_t i = 0; i < count; i++)
        errors[i].http = 0;
    const psk_status status = psk_session_step(sessions, count, tokens, logits);
    if (status != PSK_OK)
        step_each(sessions, count, tokens, V, logits, status, errors);
}
