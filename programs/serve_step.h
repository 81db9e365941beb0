/* One token into each of several sessions, so that the failure of one is no other's. */
#ifndef SERVE_STEP_H
#define SERVE_STEP_H

#include "serve_error.h"

/* sessions, tokens, errors: count; logits: count x V. Where a step of all fails, each is stepped by itself: it then has
 * its logits and an error without http, or the error for which it has none. */
void serve_step(psk_session *const *sessions, int64_t count, const int32_t *tokens, int64_t V, float *logits,
                serve_error *errors);

#endif
