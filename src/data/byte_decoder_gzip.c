#include "data/byte_decoder.h"

#define GZIP_MAGIC 0x1f, 0x8b

#if PSK_WITH_ZLIB

#include "base/memory.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

typedef struct gzip_state {
    z_stream stream;
    bool ended; /* a member is at its end; another may follow */
} gzip_state;

static void *gzip_alloc(void *unused, unsigned count, unsigned size) {
    void *block;
    (void)unused;
    return psk_alloc((size_t)count * size, "zlib", &block) == PSK_OK ? block : NULL;
}

static void gzip_free(void *unused, void *block) {
    (void)unused;
    psk_free(block);
}

static void gzip_close(void *state) {
    gzip_state *const gzip = state;
    inflateEnd(&gzip->stream);
    psk_free(gzip);
}

static psk_status gzip_fail(const gzip_state *gzip, int code) {
    if (code == Z_MEM_ERROR)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for zlib");
    return psk_fail(PSK_ERROR_FORMAT, "the gzip data is damaged: %s",
                    gzip->stream.msg ? gzip->stream.msg : "it needs a dictionary");
}

static psk_status gzip_open(void **state) {
    gzip_state *gzip;
    PSK_TRY(psk_alloc_zero(sizeof *gzip, "zlib", (void **)&gzip));
    gzip->stream.zalloc = gzip_alloc;
    gzip->stream.zfree = gzip_free;
    const int code = inflateInit2(&gzip->stream, 16 + MAX_WBITS); /* 16: gzip, not zlib's own frame */
    if (code != Z_OK) {
        const psk_status status = gzip_fail(gzip, code);
        psk_free(gzip);
        return status;
    }
    *state = gzip;
    return PSK_OK;
}

/* gzip files may be joined, so a member that ends is followed by another one or by nothing. */
static psk_status gzip_decode(void *state, psk_decoder_step *step, bool *whole) {
    gzip_state *const gzip = state;
    z_stream *const stream = &gzip->stream;
    const size_t in = step->in_size < UINT_MAX ? step->in_size : UINT_MAX;
    const size_t out = step->out_size < UINT_MAX ? step->out_size : UINT_MAX;
    if (gzip->ended && in > 0) {
        inflateReset(stream);
        gzip->ended = false;
    }
    stream->next_in = (unsigned char *)(uintptr_t)step->in; /* zlib does not write to it */
    stream->avail_in = (unsigned)in;
    stream->next_out = step->out;
    stream->avail_out = (unsigned)out;
    const int code = gzip->ended ? Z_OK : inflate(stream, Z_NO_FLUSH);
    step->in_used = in - stream->avail_in;
    step->out_made = out - stream->avail_out;
    gzip->ended = gzip->ended || code == Z_STREAM_END;
    *whole = gzip->ended;
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
        return gzip_fail(gzip, code);
    return PSK_OK;
}

const psk_decoder psk_decoder_gzip = {.name = "gzip",
                                      .magic = {GZIP_MAGIC},
                                      .magic_size = 2,
                                      .suffixes = {".gz"},
                                      .open = gzip_open,
                                      .decode = gzip_decode,
                                      .close = gzip_close};

#else

const psk_decoder psk_decoder_gzip = {
    .name = "gzip",
    .magic = {GZIP_MAGIC},
    .magic_size = 2,
    .suffixes = {".gz"},
    .missing = "this polysketch was built without zlib: decompress it first, for example: gunzip -c FILE | polysketch "
               "prepare - ..."};

#endif
