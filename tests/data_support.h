/* What the tests of data share: a folder of their own and files in it. */
#ifndef PSK_TESTS_DATA_SUPPORT_H
#define PSK_TESTS_DATA_SUPPORT_H

#include "base/files.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static char *folder; /* of the running test */

/* Path of a file in the test's folder; valid until the eighth call after. */
static inline const char *in_folder(const char *name) {
    static char paths[8][512];
    static int next;
    char *const path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void write_text(const char *name, const char *text) {
    PSK_TEST_OK(psk_write_file(in_folder(name), text, strlen(text)));
}

#endif
