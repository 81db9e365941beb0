#include "records.h"

#include "streams.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static FILE *output; /* standard output as it was, where the path is "-" */

json_t *json_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static bool take_output(const char *command) {
    const int descriptor = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    output = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (output && fflush(stdout) == 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) {
        streams_lend_output();
        return true;
    }
    say_error(command, "cannot write to standard output: %s", strerror(errno));
    return false;
}

bool record_begin(const char *command, const char *path) {
    if (path && strcmp(path, "-") == 0)
        return take_output(command);
    return !path || can_write(command, path);
}

static bool record_put(const char *command, const char *path, const char *mode, size_t flags, json_t *record) {
    FILE *const file = output ? output : fopen(path, mode);
    bool good =
        file && record && json_dumpf(record, file, flags | JSON_REAL_PRECISION(9)) == 0 && fputc('\n', file) != EOF;
    if (file && (output ? fflush(output) : fclose(file)) != 0)
        good = false;
    if (!good)
        say_error(command, "cannot write %s: %s", output ? "to standard output" : path, strerror(errno));
    json_decref(record);
    return good;
}

bool record_append(const char *command, const char *path, json_t *record) {
    return record_put(command, path, "a", JSON_COMPACT, record);
}

bool record_write(const char *command, const char *path, json_t *record) {
    return record_put(command, path, "w", JSON_INDENT(4), record);
}
