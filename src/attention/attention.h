/* Attention for the layers above: views with strides, a plan into a caller's arena, and the core behind the public
 * functions. Models (src/model) and decoding sessions (src/infer) include this header.
 *
 * All of src/attention works on G groups at once. A group is one key/value head of one sequence with the
 * rep = H / Hkv query heads that read it: G = B Hkv, or Hkv for one document of a packed row. */
#ifndef PSK_ATTENTION_H
#define PSK_ATTENTION_H

#include "base/memory.h"
#include "device/device.h"

#include <stdbool.h>

/* Far above what is of use (4, 8), and below where s^p takes long. */
#define PSK_MOST_DEGREE 64

/* As psk_attention_create, but the workspace is planned into the caller's arena (category "workspace"), which must be
 * committed before forward and outlive the attention. One attention serves all layers of a model. `device` may be NULL
 * for a plan that is never run: then the composed form is planned. Released by psk_attention_free. */
psk_status psk_attention_plan(psk_device *device, const psk_attention_config *config, const psk_attention_shape *shape,
                              psk_arena *arena, psk_attention **out);

/* The core of psk_attention_forward and psk_attention_backward on views. Allocates nothing. The views must be right
 * (PSK_ASSERT): tensors of users are checked by the public functions. */
psk_status psk_attention_core_forward(const psk_attention *attention, const psk_attention_views *views);
psk_status psk_attention_core_backward(const psk_attention *attention, const psk_attention_views *views);

/* PSK_ERROR_ARGUMENT or PSK_ERROR_UNSUPPORTED naming the field, its value and the limit. */
psk_status psk_attention_config_check(const psk_attention_config *config);

/* What a mechanism reads: q and k themselves; a and b (sketches or features of q and k). */
bool psk_attention_uses_qk(const psk_attention_config *config);
bool psk_attention_uses_ab(const psk_attention_config *config);

/* Whether there are near keys, weighed by q and k: beside far ones (polysketch), or alone (local_only). */
bool psk_attention_has_local(const psk_attention_config *config);

/* Rows m of the state of one group: r (r+1) / 2 for polysketch, r for performer, 0 where there is no state. */
int64_t psk_attention_state_rows(const psk_attention_config *config);

#endif
