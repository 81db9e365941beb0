#include "train/tensorboard.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/little_endian.h"
#include "train/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EVENT_SIZE 1024 /* all numbers of a step take some 250 bytes */
#define NAME_TRIES 100  /* seconds to move on when a file of this name exists */

/* Numbers of the fields in tensorflow/core/util/event.proto and framework/summary.proto. */
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION_LOG = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_LOG_STATUS = 1, SESSION_LOG_START = 1 };
enum { WIRE_VARINT = 0, WIRE_64_BITS = 1, WIRE_BYTES = 2, WIRE_32_BITS = 5 };

struct psk_events {
    FILE *file;
    char *path;
};

typedef struct message {
    unsigned char bytes[EVENT_SIZE];
    size_t size;
} message;

uint32_t psk_crc32c(const unsigned char *data, size_t bytes) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0); /* the polynomial, bits reversed */
    }
    return ~crc;
}

/* TFRecord stores it rotated and shifted, lest a checksum over data that holds checksums be weak. */
static uint32_t masked_crc32c(const unsigned char *data, size_t bytes) {
    const uint32_t crc = psk_crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_varint(message *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        out->bytes[out->size++] = (unsigned char)(value | 0x80);
    out->bytes[out->size++] = (unsigned char)value;
}

static void put_key(message *out, int field, int wire) {
    put_varint(out, (uint64_t)(field << 3 | wire));
}

static void put_integer(message *out, int field, uint64_t value) {
    put_key(out, field, WIRE_VARINT);
    put_varint(out, value);
}

static void put_bytes(message *out, int field, const void *data, size_t size) {
    PSK_ASSERT(out->size + size + 20 <= sizeof out->bytes);
    put_key(out, field, WIRE_BYTES);
    put_varint(out, size);
    memcpy(out->bytes + out->size, data, size);
    out->size += size;
}

static void put_double(message *out, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(out, field, WIRE_64_BITS);
    psk_store_le(out->bytes + out->size, bits, 8);
    out->size += 8;
}

static void put_float(message *out, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(out, field, WIRE_32_BITS);
    psk_store_le(out->bytes + out->size, bits, 4);
    out->size += 4;
}

static void put_summary_value(message *summary, const char *tag, double value) {
    message one = {.size = 0};
    if (!isfinite(value))
        return;
    put_bytes(&one, VALUE_TAG, tag, strlen(tag));
    put_float(&one, VALUE_SIMPLE, (float)value);
    put_bytes(summary, SUMMARY_VALUE, one.bytes, one.size);
}

static void begin_event(message *event, int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    event->size = 0;
    put_double(event, EVENT_WALL_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    if (step > 0)
        put_integer(event, EVENT_STEP, (uint64_t)step);
}

/* Frame: length (8 bytes), masked CRC of these 8 bytes (4), data, masked CRC of the data (4). */
static psk_status write_event(psk_events *events, const message *event) {
    unsigned char head[12], tail[4];
    psk_store_le(head, event->size, 8);
    psk_store_le(head + 8, masked_crc32c(head, 8), 4);
    psk_store_le(tail, masked_crc32c(event->bytes, event->size), 4);
    fwrite(head, 1, sizeof head, events->file);
    fwrite(event->bytes, 1, event->size, events->file);
    fwrite(tail, 1, sizeof tail, events->file);
    if (fflush(events->file) != 0 || ferror(events->file))
        return psk_file_error(events->path, "write");
    return PSK_OK;
}

/* Readers take the files of a folder in the order of their names: the name begins with the time and must be new. */
static psk_status create_file(psk_events *events, const char *folder, int64_t first_step) {
    const size_t size = strlen(folder) + 96;
    int64_t now = (int64_t)time(NULL);
    PSK_TRY(psk_alloc(size, "name of the event file", (void **)&events->path));
    for (int i = 0; i < NAME_TRIES && !events->file; i++, now++) {
        snprintf(events->path, size, "%s/events.out.tfevents.%010" PRId64 ".%08" PRId64, folder, now, first_step);
        events->file = fopen(events->path, "wbx");
        if (!events->file && errno != EEXIST)
            break;
    }
    if (!events->file)
        return psk_file_error(events->path, "create");
    return PSK_OK;
}

psk_status psk_events_open(const char *folder, int64_t first_step, psk_events **out) {
    static const char version[] = "brain.Event:2";
    psk_status status;
    psk_events *events;
    message event, start = {.size = 0};
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *events, "events", (void **)&events));
    PSK_TRY_GOTO(status, create_file(events, folder, first_step), failed);
    begin_event(&event, 0);
    put_bytes(&event, EVENT_FILE_VERSION, version, strlen(version));
    PSK_TRY_GOTO(status, write_event(events, &event), failed);
    put_integer(&start, SESSION_LOG_STATUS, SESSION_LOG_START);
    begin_event(&event, first_step);
    put_bytes(&event, EVENT_SESSION_LOG, start.bytes, start.size);
    PSK_TRY_GOTO(status, write_event(events, &event), failed);
    *out = events;
    return PSK_OK;
failed:
    psk_events_close(events);
    return status;
}

psk_status psk_events_write(psk_events *events, const psk_train_progress *progress) {
    message event, summary = {.size = 0};
#define NUMBER(key, field, tag) put_summary_value(&summary, tag, progress->field);
    PSK_METRICS(NUMBER)
#undef NUMBER
    begin_event(&event, progress->step);
    put_bytes(&event, EVENT_SUMMARY, summary.bytes, summary.size);
    return write_event(events, &event);
}

void psk_events_close(psk_events *events) {
    if (!events)
        return;
    if (events->file)
        fclose(events->file);
    psk_free(events->path);
    psk_free(events);
}
