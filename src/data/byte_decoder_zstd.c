#include "data/byte_decoder.h"

#define ZSTD_MAGIC 0x28, 0xb5, 0x2f, 0xfd

#if PSK_WITH_ZSTD

#include "base/memory.h"

#include <zstd.h>
#include <zstd_errors.h>

typedef struct zstd_state {
    ZSTD_DStream *stream;
    bool ended; /* a frame is at its end; another may follow */
} zstd_state;

static void zstd_close(void *state) {
    zstd_state *const zstd = state;
    ZSTD_freeDStream(zstd->stream);
    psk_free(zstd);
}

static psk_status zstd_open(void **state) {
    zstd_state *zstd;
    PSK_TRY(psk_alloc_zero(sizeof *zstd, "zstd", (void **)&zstd));
    zstd->stream = psk_alloc_fails() ? NULL : ZSTD_createDStream();
    if (!zstd->stream) {
        psk_free(zstd);
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for zstd");
    }
    *state = zstd;
    return PSK_OK;
}

static psk_status zstd_fail(size_t code) {
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for zstd");
    case ZSTD_error_frameParameter_windowTooLarge:
        return psk_fail(PSK_ERROR_FORMAT,
                        "the zstd data needs a window of more than 128 MiB (zstd --long=28 and above): "
                        "decompress it first");
    default:
        return psk_fail(PSK_ERROR_FORMAT, "the zstd data is damaged: %s", ZSTD_getErrorName(code));
    }
}

static psk_status zstd_decode(void *state, psk_decoder_step *step, bool *whole) {
    zstd_state *const zstd = state;
    ZSTD_inBuffer in = {.src = step->in, .size = step->in_size};
    ZSTD_outBuffer out = {.dst = step->out, .size = step->out_size};
    *whole = zstd->ended;
    if (zstd->ended && in.size == 0)
        return PSK_OK;
    const size_t code = ZSTD_decompressStream(zstd->stream, &out, &in);
    if (ZSTD_isError(code))
        return zstd_fail(code);
    step->in_used = in.pos;
    step->out_made = out.pos;
    *whole = zstd->ended = code == 0;
    return PSK_OK;
}

const psk_decoder psk_decoder_zstd = {.name = "zstd",
                                      .magic = {ZSTD_MAGIC},
                                      .magic_size = 4,
                                      .suffixes = {".zst", ".zstd"},
                                      .open = zstd_open,
                                      .decode = zstd_decode,
                                      .close = zstd_close};

#else

const psk_decoder psk_decoder_zstd = {
    .name = "zstd",
    .magic = {ZSTD_MAGIC},
    .magic_size = 4,
    .suffixes = {".zst", ".zstd"},
    .missing = "this polysketch was built without zstd: decompress it first, for example: zstd -dc FILE | polysketch "
               "prepare - ..."};

#endif
