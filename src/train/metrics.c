#include "train/metrics.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE  1024
#define WHERE_SIZE 1100 /* a path and the number of a line */

struct psk_metrics {
    FILE *file;
    char *path;
};

static psk_status read_figure(const json_t *line, const char *path, const char *key, double *value) {
    *value = NAN;
    if (json_is_null(json_object_get(line, key)))
        return PSK_OK;
    return psk_json_double(line, path, key, -INFINITY, INFINITY, value);
}

static psk_status read_figures(const json_t *line, const char *path, psk_train_progress *progress) {
#define NUMBER(key, field, tag) PSK_TRY(read_figure(line, path, #key, &progress->field));
    PSK_METRICS(NUMBER)
#undef NUMBER
    return PSK_OK;
}

/* *step of a line; the figures of the line that is progress's own. where: for errors */
static psk_status read_line(const char *text, const char *where, psk_train_progress *progress, int64_t *step) {
    json_t *line;
    *step = 0;
    PSK_TRY(psk_json_parse(text, strlen(text), where, &line));
    psk_status status = psk_json_int(line, where, "step", 1, INT64_MAX, step);
    if (status == PSK_OK && *step == progress->step)
        status = read_figures(line, where, progress);
    json_decref(line);
    return status;
}

/* *end: where the line of progress->step ends (the last such line). A last line without its end was cut off. */
static psk_status find_end(const psk_metrics *metrics, psk_train_progress *progress, long *end) {
    char text[LINE_SIZE], where[WHERE_SIZE];
    *end = 0;
    for (int64_t number = 1; fgets(text, sizeof text, metrics->file); number++) {
        const size_t length = strlen(text);
        int64_t step;
        snprintf(where, sizeof where, "%s, line %" PRId64, metrics->path, number);
        if (length == 0 || text[length - 1] != '\n')
            break;
        PSK_TRY(read_line(text, where, progress, &step));
        if (step > progress->step)
            break;
        *end = ftell(metrics->file);
    }
    return ferror(metrics->file) || *end < 0 ? psk_file_error(metrics->path, "read") : PSK_OK;
}

psk_status psk_metrics_open(const char *path, psk_train_progress *progress, psk_metrics **out) {
    psk_status status;
    psk_metrics *metrics;
    long end = 0;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *metrics, "metrics", (void **)&metrics));
    PSK_TRY_GOTO(status, psk_strdup(path, &metrics->path), failed);
    metrics->file = fopen(path, progress->step > 0 ? "a+" : "w");
    if (!metrics->file) {
        status = psk_file_error(metrics->path, "open");
        goto failed;
    }
    if (progress->step > 0) {
        rewind(metrics->file);
        PSK_TRY_GOTO(status, find_end(metrics, progress, &end), failed);
        if (ftruncate(fileno(metrics->file), end) != 0 || fseek(metrics->file, 0, SEEK_END) != 0) {
            status = psk_file_error(metrics->path, "shorten");
            goto failed;
        }
    }
    *out = metrics;
    return PSK_OK;
failed:
    psk_metrics_close(metrics);
    return status;
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static psk_status put_figures(const psk_train_progress *progress, json_t *line) {
    PSK_TRY(psk_json_set(line, "step", json_integer(progress->step)));
    PSK_TRY(psk_json_set(line, "tokens", json_integer(progress->tokens)));
#define NUMBER(key, field, tag) PSK_TRY(psk_json_set(line, #key, number(progress->field)));
    PSK_METRICS(NUMBER)
#undef NUMBER
    return psk_json_set(line, "memory_bytes", json_integer(progress->memory_bytes));
}

/* By jansson: printf would write the decimal point of the program's locale. */
psk_status psk_metrics_write(psk_metrics *metrics, const psk_train_progress *progress) {
    psk_status status;
    char *text = NULL;
    psk_json_init();
    json_t *line = json_object();
    if (!line)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for a line of %s", metrics->path);
    PSK_TRY_GOTO(status, put_figures(progress, line), done);
    PSK_TRY_GOTO(status, psk_json_dump(line, metrics->path, 0, &text), done);
    fprintf(metrics->file, "%s\n", text);
    if (fflush(metrics->file) != 0 || ferror(metrics->file))
        status = psk_file_error(metrics->path, "write");
done:
    psk_free(text);
    json_decref(line);
    return status;
}

psk_status psk_metrics_sync(psk_metrics *metrics) {
    return fflush(metrics->file) != 0 || fsync(fileno(metrics->file)) != 0 ? psk_file_error(metrics->path, "write")
                                                                           : PSK_OK;
}

void psk_metrics_close(psk_metrics *metrics) {
    if (!metrics)
        return;
    if (metrics->file)
        fclose(metrics->file);
    psk_free(metrics->path);
    psk_free(metrics);
}
