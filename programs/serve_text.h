/* Text that goes into replies and the log must be UTF-8, whatever a client or a file system calls things. */
#ifndef SERVE_TEXT_H
#define SERVE_TEXT_H

#include <jansson.h>

/* The bytes with U+FFFD for those that belong to no character, a cut one at the end too. To be freed; NULL without
 * memory. */
char *serve_text_copy(const char *bytes, size_t size);
/* The same of a 0-terminated text. */
json_t *serve_text_json(const char *text);

#endif
