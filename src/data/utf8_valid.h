/* Which bytes are UTF-8. */
#ifndef PSK_UTF8_VALID_H
#define PSK_UTF8_VALID_H

#include <stddef.h>

/* The first place from `start` on where no well-formed character (Unicode, table 3-7) begins; `size` if there is none.
 */
size_t psk_utf8_valid_end(const char *text, size_t size, size_t start);

#endif
