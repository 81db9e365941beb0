#include "train/metrics.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 1024

struct psk_metrics {
    FILE *file;
    char *path;
};

/* *end: where the line of step last_step ends (the last such line). A last line without its end was cut off. */
static psk_status find_end(const psk_metrics *metrics, int64_t last_step, long *end) {
    char line[LINE_SIZE];
    *end = 0;
    while (fgets(line, sizeof line, metrics->file)) {
        const size_t length = strlen(line);
        int64_t step = 0;
        json_t *object = NULL;
        if (length == 0 || line[length - 1] != '\n')
            break;
        PSK_TRY(psk_json_parse(line, length, metrics->path, &object));
        const psk_status status = psk_json_int(object, metrics->path, "step", 1, INT64_MAX, &step);
        json_decref(object);
        PSK_TRY(status);
        if (step > last_step)
            break;
        *end = ftell(metrics->file);
    }
    return ferror(metrics->file) || *end < 0 ? psk_file_error(metrics->path, "read") : PSK_OK;
}

psk_status psk_metrics_open(const char *path, int64_t last_step, psk_metrics **out) {
    psk_status status;
    psk_metrics *metrics;
    long end = 0;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *metrics, "metrics", (void **)&metrics));
    PSK_TRY_GOTO(status, psk_strdup(path, &metrics->path), failed);
    metrics->file = fopen(path, last_step > 0 ? "a+" : "w");
    if (!metrics->file) {
        status = psk_file_error(metrics->path, "open");
        goto failed;
    }
    if (last_step > 0) {
        rewind(metrics->file);
        PSK_TRY_GOTO(status, find_end(metrics, last_step, &end), failed);
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
