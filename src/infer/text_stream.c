/* Bytes -> characters -> text without stop strings. Each stop string is looked for by its own Knuth-Morris-Pratt
 * automaton, a byte of text at a time, so how the bytes came cannot matter. What the automata have matched is what has
 * to be held back: the text may go on to be a stop string. Stop strings are UTF-8, so a match never begins or ends
 * inside a character. */
#include "base/memory.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

typedef struct stop_string {
    char *text;
    size_t size, matched;
    size_t *borders; /* [i]: length of the longest proper beginning of text[0 ... i] that is also its end */
} stop_string;

struct psk_text_stream {
    psk_utf8_stream characters;
    stop_string *stops;
    int64_t stop_count;
    char *text; /* shown, then what is new or held back */
    size_t shown, size, capacity;
    bool stopped;
};

/* ------------------------------------------------------------------------------------------------------ stop strings
 */

/* Matches one more byte; true if the string is complete. */
static bool stop_advance(stop_string *stop, char byte) {
    while (stop->matched > 0 && stop->text[stop->matched] != byte)
        stop->matched = stop->borders[stop->matched - 1];
    if (stop->text[stop->matched] == byte)
        stop->matched++;
    return stop->matched == stop->size;
}

static psk_status stop_create(const char *text, int64_t number, stop_string *stop) {
    stop->size = text ? strlen(text) : 0;
    if (stop->size == 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "stop string %" PRId64 " is empty", number);
    if (psk_utf8_valid_end(text, stop->size, 0) < stop->size)
        return psk_fail(PSK_ERROR_ARGUMENT, "stop string %" PRId64 " is not UTF-8", number);
    PSK_TRY(psk_strdup(text, &stop->text));
    PSK_TRY(psk_alloc_zero(stop->size * sizeof *stop->borders, "a stop string", (void **)&stop->borders));
    for (size_t i = 1; i < stop->size; i++) {
        stop_advance(stop, text[i]);
        stop->borders[i] = stop->matched;
    }
    stop->matched = 0;
    return PSK_OK;
}

psk_status psk_text_stream_create(const char *const *stops, int64_t stop_count, psk_text_stream **out) {
    *out = NULL;
    if (stop_count < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "stop_count %" PRId64 ": it must be >= 0", stop_count);
    psk_text_stream *stream;
    psk_status status;
    int64_t bytes;
    PSK_TRY(psk_size_mul(stop_count, (int64_t)sizeof *stream->stops, &bytes));
    PSK_TRY(psk_alloc_zero(sizeof *stream, "a text stream", (void **)&stream));
    PSK_TRY_GOTO(status, psk_alloc_zero((size_t)bytes, "stop strings", (void **)&stream->stops), failed);
    stream->stop_count = stop_count;
    for (int64_t i = 0; i < stop_count; i++)
        PSK_TRY_GOTO(status, stop_create(stops[i], i, &stream->stops[i]), failed);
    *out = stream;
    return PSK_OK;
failed:
    psk_text_stream_free(stream);
    return status;
}

void psk_text_stream_free(psk_text_stream *stream) {
    if (!stream)
        return;
    for (int64_t i = 0; i < stream->stop_count; i++) {
        psk_free(stream->stops[i].text);
        psk_free(stream->stops[i].borders);
    }
    psk_free(stream->stops);
    psk_free(stream->text);
    psk_free(stream);
}

/* -------------------------------------------------------------------------------------------------------------- text
 */

/* Drops what was shown and makes room for `more` bytes. */
static psk_status make_room(psk_text_stream *stream, size_t more) {
    const size_t kept = stream->size - stream->shown;
    char *target = stream->text;
    if (more > stream->capacity - kept) {
        const size_t capacity = 2 * (kept + more);
        PSK_TRY(psk_alloc(capacity, "a piece of text", (void **)&target));
        stream->capacity = capacity;
    }
    if (kept > 0)
        memmove(target, stream->text + stream->shown, kept);
    if (target != stream->text)
        psk_free(stream->text);
    stream->text = target;
    stream->size = kept;
    stream->shown = 0;
    return PSK_OK;
}

/* Text before the stop string that is complete with it, if one is. */
static void take_text(psk_text_stream *stream, const char *text, size_t size) {
    for (size_t i = 0; i < size && !stream->stopped; i++) {
        size_t longest = 0;
        stream->text[stream->size++] = text[i];
        for (int64_t s = 0; s < stream->stop_count; s++)
            if (stop_advance(&stream->stops[s], text[i]) && stream->stops[s].size > longest)
                longest = stream->stops[s].size;
        stream->size -= longest;
        stream->stopped = longest > 0;
    }
}

/* All but the last `held` bytes. */
static void show(psk_text_stream *stream, size_t held, const char **text, size_t *text_size) {
    *text = stream->text + stream->shown;
    *text_size = stream->size - held - stream->shown;
    stream->shown += *text_size;
}

static size_t longest_match(const psk_text_stream *stream) {
    size_t longest = 0;
    for (int64_t s = 0; s < stream->stop_count; s++)
        if (stream->stops[s].matched > longest)
            longest = stream->stops[s].matched;
    return longest;
}

psk_status psk_text_stream_push(psk_text_stream *stream, const char *bytes, size_t size, const char **text,
                                size_t *text_size, int *stopped) {
    char out[PSK_UTF8_OUTPUT_CAPACITY];
    int64_t room;
    PSK_TRY(psk_size_mul((int64_t)size + 3, 3, &room)); /* a byte becomes at most U+FFFD; 3 may be waiting */
    PSK_TRY(make_room(stream, (size_t)room));
    for (size_t i = 0; i < size && !stream->stopped; i++)
        take_text(stream, out, psk_utf8_push(&stream->characters, (unsigned char)bytes[i], out));
    show(stream, stream->stopped ? 0 : longest_match(stream), text, text_size);
    *stopped = stream->stopped;
    return PSK_OK;
}

psk_status psk_text_stream_finish(psk_text_stream *stream, const char **text, size_t *text_size) {
    char out[PSK_UTF8_OUTPUT_CAPACITY];
    PSK_TRY(make_room(stream, sizeof out));
    take_text(stream, out, psk_utf8_finish(&stream->characters, out));
    show(stream, 0, text, text_size);
    for (int64_t s = 0; s < stream->stop_count; s++)
        stream->stops[s].matched = 0;
    stream->stopped = false;
    return PSK_OK;
}
