/* Event files for TensorBoard: TFRecord frames around protobuf Event messages, written by hand (docs/formats.md). */
#ifndef PSK_TENSORBOARD_H
#define PSK_TENSORBOARD_H

#include "base/status.h"

#include <stddef.h>

typedef struct psk_events psk_events;

/* A new file events.out.tfevents.<unix time>.<first step> in the folder. Its first event after the version tells
 * readers to forget what earlier files say about steps from first_step on: a resumed run does them again, and a run
 * that died before its first checkpoint leaves a file beside that of the next start. */
psk_status psk_events_open(const char *folder, int64_t first_step, psk_events **out);

/* One event with every finite number of PSK_METRICS. */
psk_status psk_events_write(psk_events *events, const psk_train_progress *progress);
void psk_events_close(psk_events *events); /* accepts NULL */

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4). */
uint32_t psk_crc32c(const unsigned char *data, size_t bytes);

#endif
