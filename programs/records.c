#include "records.h"

#include "terminal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static bool record_put(const char *command, const char *path, const char *mode, size_t flags, json_t *record) {
    FILE *const file = fopen(path, mode);
    bool good =
        file && record && json_dumpf(record, file, flags | JSON_REAL_PRECISION(9)) == 0 && fputc('\n', file) != EOF;
    if (file && fclose(file) != 0)
        good = false;
    if (!good)
        say_error(command, "cannot write %s: %s", path, strerror(errno));
    json_decref(record);
    return good;
}

bool record_append(const char *command, const char *path, json_t *record) {
    return record_put(command, path, "a", JSON_COMPACT, record);
}

bool record_write(const char *command, const char *path, json_t *record) {
    return record_put(command, path, "w", JSON_INDENT(4), record);
}
