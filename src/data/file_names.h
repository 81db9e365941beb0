/* What names of files say. */
#ifndef PSK_FILE_NAMES_H
#define PSK_FILE_NAMES_H

#include <stdbool.h>
#include <string.h>

/* "books/emma.txt.gz" ends in ".gz"; a name that is nothing else does not. */
static inline bool psk_name_ends(const char *name, const char *suffix) {
    const size_t length = strlen(name), end = strlen(suffix);
    return length > end && strcmp(name + length - end, suffix) == 0;
}

#endif
