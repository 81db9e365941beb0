/* Files that are told by their first bytes to be something else than text. */
#ifndef PSK_NOT_TEXT_H
#define PSK_NOT_TEXT_H

#include "base/status.h"

#include <stdint.h>

/* FORMAT, with what to do, if an input that begins with these bytes (decompressed; 512 of them or all) is an archive,
 * a picture, text of another encoding than bytes, ...; `name` is for the message. */
psk_status psk_refuse_not_text(const char *name, const unsigned char *text, int64_t size);

#endif
