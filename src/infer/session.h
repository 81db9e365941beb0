/* Decoding sessions (the functions are in polysketch.h): what a sequence leaves behind for its next token.
 *
 * Per layer and key/value head: the state Z of the block algorithm, and the rows (k'', b, v) of the keys that are not
 * in it yet (psk_attention_tail: at most 2 b - 1; all of them for softmax and polynomial). A prompt is read in chunks,
 * a token is a chunk of one: one and the same function, attention's core with Nq new queries on Nk >= Nq keys. A token
 * reads Z once; where there is a local part Z is only written when a block is full. */
#ifndef PSK_SESSION_H
#define PSK_SESSION_H

#include "model/model.h"

/* Tokens of a prompt worked on at once: enough rows for dense layers at full rate, 30 MB of activations for GPT-2
 * small. */
#define PSK_SESSION_CHUNK 512

#endif
