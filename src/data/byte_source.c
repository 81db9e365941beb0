#include "data/byte_source.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/byte_decoder.h"
#include "data/file_names.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES (1 << 17) /* of the file, read at a time */

struct psk_byte_source {
    char *path;
    int fd;
    bool ended;     /* the file is */
    bool whole;     /* decompressed data may end here */
    int64_t before; /* bytes of the file before the buffer */
    size_t begin, end;
    const psk_decoder *decoder; /* NULL: as it is */
    void *state;                /* the decoder's */
    unsigned char buffer[BUFFER_BYTES];
};

static const psk_decoder *const decoders[] = {&psk_decoder_gzip, &psk_decoder_zstd};
enum { DECODERS = sizeof decoders / sizeof decoders[0] };

/* Fills the buffer, which is empty. */
static psk_status refill(psk_byte_source *source) {
    source->before += (int64_t)source->end;
    source->begin = source->end = 0;
    while (!source->ended && source->end < BUFFER_BYTES) {
        const ssize_t got = read(source->fd, source->buffer + source->end, BUFFER_BYTES - source->end);
        if (got < 0 && errno != EINTR)
            return psk_file_error(source->path, "read");
        source->ended = got == 0;
        source->end += got > 0 ? (size_t)got : 0;
    }
    return PSK_OK;
}

static bool begins(const psk_byte_source *source, const void *bytes, size_t size) {
    return source->end >= size && memcmp(source->buffer, bytes, size) == 0;
}

static psk_status choose_decoder(psk_byte_source *source) {
    PSK_TRY(psk_refuse_pointer(source->path, source->buffer, source->end));
    for (size_t i = 0; i < DECODERS; i++) {
        const psk_decoder *const decoder = decoders[i];
        if (begins(source, decoder->magic, decoder->magic_size))
            source->decoder = decoder;
        else if (psk_name_ends(source->path, decoder->suffixes[0]) ||
                 (decoder->suffixes[1] && psk_name_ends(source->path, decoder->suffixes[1])))
            return psk_fail(PSK_ERROR_FORMAT,
                            "%s is not %s, though its name says so: was the download complete? Otherwise rename it",
                            source->path, decoder->name);
    }
    if (!source->decoder)
        return PSK_OK;
    if (source->decoder->missing)
        return psk_fail(PSK_ERROR_UNSUPPORTED, "%s is %s, and %s", source->path, source->decoder->name,
                        source->decoder->missing);
    return source->decoder->open(&source->state);
}

psk_status psk_byte_source_open(const char *path, psk_byte_source **out) {
    psk_status status;
    psk_byte_source *source;
    const bool standard_input = strcmp(path, "-") == 0;
    *out = NULL;
    PSK_TRY(psk_alloc(sizeof *source, "a file that is read", (void **)&source));
    memset(source, 0, offsetof(psk_byte_source, buffer));
    source->fd = -1;
    PSK_TRY_GOTO(status, psk_strdup(standard_input ? "standard input" : path, &source->path), failed);
    source->fd = standard_input ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0) {
        status = psk_file_error(source->path, "read");
        goto failed;
    }
    PSK_TRY_GOTO(status, refill(source), failed);
    PSK_TRY_GOTO(status, choose_decoder(source), failed);
    *out = source;
    return PSK_OK;
failed:
    psk_byte_source_close(source);
    return status;
}

void psk_byte_source_close(psk_byte_source *source) {
    if (!source)
        return;
    if (source->state)
        source->decoder->close(source->state);
    if (source->fd >= 0)
        close(source->fd);
    psk_free(source->path);
    psk_free(source);
}

static void copy_plain(psk_byte_source *source, psk_decoder_step *step) {
    const size_t part = step->in_size < step->out_size ? step->in_size : step->out_size;
    memcpy(step->out, step->in, part);
    step->in_used = step->out_made = part;
    source->whole = true;
}

/* One step from the file's buffer into the caller's. */
static psk_status decode_step(psk_byte_source *source, psk_decoder_step *step) {
    if (!source->decoder) {
        copy_plain(source, step);
        return PSK_OK;
    }
    const psk_status status = source->decoder->decode(source->state, step, &source->whole);
    return status == PSK_OK ? PSK_OK
                            : psk_fail_within(status, "%s, byte %" PRId64, source->path,
                                              source->before + (int64_t)(source->begin + step->in_used));
}

psk_status psk_byte_source_read(psk_byte_source *source, unsigned char *buffer, int64_t capacity, int64_t *got) {
    *got = 0;
    while (*got < capacity) {
        if (source->begin == source->end && !source->ended)
            PSK_TRY(refill(source));
        psk_decoder_step step = {.in = source->buffer + source->begin,
                                 .in_size = source->end - source->begin,
                                 .out = buffer + *got,
                                 .out_size = (size_t)(capacity - *got)};
        PSK_TRY(decode_step(source, &step));
        source->begin += step.in_used;
        *got += (int64_t)step.out_made;
        if (step.out_made == 0 && source->begin == source->end && source->ended) {
            if (source->whole || source->before + (int64_t)source->end == 0)
                break;
            return psk_fail(PSK_ERROR_FORMAT, "%s is cut off: its %s data does not end (%" PRId64 " bytes are there)",
                            source->path, source->decoder->name, source->before + (int64_t)source->end);
        }
    }
    return PSK_OK;
}

psk_status psk_byte_source_count(psk_byte_source *source, int64_t *bytes) {
    psk_status status;
    unsigned char *buffer;
    int64_t got;
    *bytes = 0;
    PSK_TRY(psk_alloc(BUFFER_BYTES, "text that is counted", (void **)&buffer));
    do {
        PSK_TRY_GOTO(status, psk_byte_source_read(source, buffer, BUFFER_BYTES, &got), done);
        *bytes += got;
    } while (got == BUFFER_BYTES);
done:
    psk_free(buffer);
    return status;
}

bool psk_byte_source_is_compressed(const psk_byte_source *source) {
    return source->decoder != NULL;
}

int64_t psk_byte_source_consumed(const psk_byte_source *source) {
    return source->before + (int64_t)source->begin;
}
