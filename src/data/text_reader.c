#include "data/text_reader.h"

#include "base/memory.h"
#include "data/byte_source.h"
#include "data/not_text.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <string.h>

#define BLOCK_BYTES  (PSK_PIECE_BYTES + PSK_CUT_WINDOW) /* a piece, and what tells whether the tail begins in it */
#define HASHED_BYTES 65536                              /* of a document, for psk_hash_side */

struct psk_text_reader {
    XXH3_state_t hash; /* of position.offset bytes; first: it wants the alignment that psk_alloc gives */
    const psk_prepare_options *options;
    const psk_input_list *inputs;
    psk_position position;
    psk_byte_source *source; /* of position.input, NULL before it is opened */
    psk_text_format format;  /* of that input */
    int64_t consumed;        /* bytes of the inputs before it, as they lie on the disk */
    unsigned char *pending;  /* text read beyond the last block */
    int64_t pending_size, pending_capacity;
};

psk_side psk_hash_side(const unsigned char *text, int64_t size, double fraction) {
    const uint64_t hash = XXH3_64bits(text, (size_t)(size < HASHED_BYTES ? size : HASHED_BYTES));
    return (double)(hash >> 11) * 0x1p-53 < fraction ? PSK_VALID : PSK_TRAIN;
}

/* ------------------------------------------------------------------------------------------------------------ blocks
 */

/* Room for `capacity` bytes of which the first `used` are kept. */
static psk_status reserve(unsigned char **text, int64_t *capacity, int64_t used, int64_t wanted) {
    unsigned char *larger;
    PSK_TRY(psk_alloc((size_t)wanted, "text", (void **)&larger));
    if (used)
        memcpy(larger, *text, (size_t)used);
    psk_free(*text);
    *text = larger;
    *capacity = wanted;
    return PSK_OK;
}

void psk_block_free(psk_block *block) {
    psk_free(block->text);
    *block = (psk_block){0};
}

/* An empty block of the usual size: one that a long line has made larger is made small again. */
static psk_status clear_block(psk_block *block) {
    if (block->capacity != BLOCK_BYTES + 1) {
        psk_block_free(block);
        PSK_TRY(reserve(&block->text, &block->capacity, 0, BLOCK_BYTES + 1));
    }
    *block = (psk_block){.text = block->text, .capacity = block->capacity};
    return PSK_OK;
}

/* Fills the block as far as it goes: from what is pending, then from the source. */
static psk_status fill(psk_text_reader *reader, psk_block *block) {
    int64_t got;
    const int64_t room = block->capacity - block->size;
    const int64_t part = reader->pending_size < room ? reader->pending_size : room;
    if (part > 0) {
        memcpy(block->text + block->size, reader->pending, (size_t)part);
        reader->pending_size -= part;
        memmove(reader->pending, reader->pending + part, (size_t)reader->pending_size);
        block->size += part;
    }
    PSK_TRY(psk_byte_source_read(reader->source, block->text + block->size, room - part, &got));
    block->size += got;
    return PSK_OK;
}

/* The block keeps `length` bytes, the others are pending. */
static psk_status cut_block(psk_text_reader *reader, psk_block *block, int64_t length) {
    const int64_t rest = block->size - length, all = rest + reader->pending_size, usual = BLOCK_BYTES + 1;
    if (all > reader->pending_capacity || (all <= usual && reader->pending_capacity > usual))
        PSK_TRY(reserve(&reader->pending, &reader->pending_capacity, reader->pending_size, all > usual ? all : usual));
    block->size = length;
    if (rest == 0)
        return PSK_OK;
    memmove(reader->pending + rest, reader->pending, (size_t)reader->pending_size);
    memcpy(reader->pending, block->text + length, (size_t)rest);
    reader->pending_size = all;
    return PSK_OK;
}

static int64_t count_lines(const unsigned char *text, int64_t size) {
    int64_t lines = 0;
    for (int64_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    return lines;
}

static void close_input(psk_text_reader *reader) {
    reader->consumed += psk_byte_source_consumed(reader->source);
    psk_byte_source_close(reader->source);
    reader->source = NULL;
    reader->pending_size = 0;
    reader->position = (psk_position){.input = reader->position.input + 1, .document = -1};
}

/* The block is what it is going to be; the position moves behind it. */
static void pass_block(psk_text_reader *reader, psk_block *block, bool last) {
    psk_position *const position = &reader->position;
    block->format = reader->format;
    block->input = position->input;
    block->lines = position->lines;
    position->offset += block->size;
    position->lines += count_lines(block->text, block->size);
    XXH3_64bits_update(&reader->hash, block->text, (size_t)block->size);
    position->hash = XXH3_64bits_digest(&reader->hash);
    block->consumed = reader->consumed + psk_byte_source_consumed(reader->source);
    if (last)
        close_input(reader);
    block->after = reader->position;
}

/* ------------------------------------------------------------------------------------------------------ opening
 */

static const psk_input *current(const psk_text_reader *reader) {
    return &reader->inputs->files[reader->position.input];
}

/* By name, else by what the input begins with, which stays pending. What is asked for is not called into question. */
static psk_status find_format(psk_text_reader *reader) {
    psk_block start = {0};
    psk_status status;
    reader->format = psk_format_of_name(current(reader)->path, reader->options->format);
    if (reader->options->format != PSK_FORMAT_AUTO)
        return PSK_OK;
    PSK_TRY(clear_block(&start));
    PSK_TRY_GOTO(status, fill(reader, &start), done);
    PSK_TRY_GOTO(status, psk_refuse_not_text(psk_input_name(current(reader)), start.text, start.size), done);
    if (reader->format == PSK_FORMAT_AUTO)
        reader->format = psk_is_wikitext(start.text, start.size) ? PSK_FORMAT_WIKITEXT : PSK_FORMAT_TEXT;
    status = cut_block(reader, &start, 0);
done:
    psk_block_free(&start);
    return status;
}

/* How long a text document is must be known where its tail is held out: of a compressed one by reading it twice. */
static psk_status find_length(psk_text_reader *reader) {
    const psk_input *const input = current(reader);
    psk_byte_source *source;
    if (reader->format != PSK_FORMAT_TEXT || input->held_out || reader->options->split != PSK_SPLIT_TAIL ||
        reader->options->valid_input_count > 0 || reader->options->valid_fraction == 0)
        return PSK_OK;
    if (input->bytes < 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s is a pipe, so where its last part begins is not known: hold nothing out (--valid 0), other "
                        "files (--valid PATH) or whole documents (--split hash), or give it as a file",
                        psk_input_name(input));
    reader->position.document = input->bytes;
    if (!psk_byte_source_is_compressed(reader->source))
        return PSK_OK;
    PSK_TRY(psk_byte_source_open(input->path, &source));
    const psk_status status = psk_byte_source_count(source, &reader->position.document);
    psk_byte_source_close(source);
    return status;
}

/* Reads to where an interrupted preparation stood; what is passed over must be what it was then. */
static psk_status skip_to(psk_text_reader *reader, int64_t offset, uint64_t hash) {
    psk_block block = {0};
    psk_status status = PSK_OK;
    for (int64_t at = 0; at < offset; at += block.size) {
        PSK_TRY_GOTO(status, clear_block(&block), done);
        if (offset - at < block.capacity)
            block.capacity = offset - at;
        status = fill(reader, &block);
        block.capacity = BLOCK_BYTES + 1;
        if (status != PSK_OK || block.size == 0)
            break;
        XXH3_64bits_update(&reader->hash, block.text, (size_t)block.size);
    }
    if (status == PSK_OK && offset > 0 && XXH3_64bits_digest(&reader->hash) != hash)
        status = psk_fail(PSK_ERROR_FORMAT,
                          "%s has changed since a part of it was prepared: remove the output folder and prepare "
                          "everything again",
                          psk_input_name(current(reader)));
done:
    psk_block_free(&block);
    return status;
}

static psk_status open_input(psk_text_reader *reader) {
    psk_position *const position = &reader->position;
    const int64_t document = position->document;
    XXH3_64bits_reset(&reader->hash);
    PSK_TRY(psk_byte_source_open(current(reader)->path, &reader->source));
    PSK_TRY(find_format(reader));
    PSK_TRY(find_length(reader));
    if (position->offset > 0 && document != position->document)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s had %" PRId64 " bytes of text when a part of it was prepared, it has %" PRId64
                        " now: remove the output folder and prepare everything again",
                        psk_input_name(current(reader)), document, position->document);
    return skip_to(reader, position->offset, position->hash);
}

psk_status psk_text_reader_open(const psk_prepare_options *options, const psk_input_list *inputs, psk_position position,
                                psk_text_reader **out) {
    psk_text_reader *reader;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *reader, "reader", (void **)&reader));
    reader->options = options;
    reader->inputs = inputs;
    reader->position = position;
    for (int64_t i = 0; i < position.input; i++)
        reader->consumed += inputs->files[i].bytes > 0 ? inputs->files[i].bytes : 0;
    *out = reader;
    return PSK_OK;
}

void psk_text_reader_close(psk_text_reader *reader) {
    if (!reader)
        return;
    psk_byte_source_close(reader->source);
    psk_free(reader->pending);
    psk_free(reader);
}

/* ------------------------------------------------------------------------------------------------------------- text
 */

/* Where the tail begins, seen from the beginning of the block; negative: there is none, or it has begun. */
static int64_t tail_begin(const psk_text_reader *reader) {
    const psk_position *const position = &reader->position;
    if (position->document < 0 || position->side == PSK_VALID)
        return -1;
    return psk_cut_tail(position->document, reader->options->valid_fraction) - position->offset;
}

/* Ends the block where the tail begins, if what is before it fits in one piece, as encode_document does. Where a tail
 * begins behind the block, it is cut behind the piece. */
static void end_part(psk_text_reader *reader, psk_block *block, int64_t *length) {
    const int64_t tail = tail_begin(reader);
    if (tail < 0 || tail >= block->size)
        return;
    const int64_t cut = tail > 0 ? psk_cut_near(block->text, tail) : 0;
    if (cut > PSK_PIECE_BYTES)
        return;
    *length = cut;
    block->ends_part = true;
    reader->position.side = PSK_VALID;
}

static psk_status check_length(const psk_text_reader *reader, const psk_block *block) {
    const bool last = block->size < block->capacity; /* there is no more to read */
    const int64_t expected = reader->position.document, seen = reader->position.offset + block->size;
    if (expected < 0 || (last ? seen == expected : seen <= expected))
        return PSK_OK;
    return psk_fail(PSK_ERROR_FILE, "%s became %s while it was read", psk_input_name(current(reader)),
                    seen < expected ? "shorter" : "longer");
}

static psk_status next_piece(psk_text_reader *reader, psk_block *block) {
    psk_position *const position = &reader->position;
    int64_t length = block->size > PSK_PIECE_BYTES ? psk_cut_piece(block->text) : block->size;
    PSK_TRY(check_length(reader, block));
    if (current(reader)->held_out)
        position->side = PSK_VALID;
    else if (position->offset == 0 && position->document < 0 && reader->options->split == PSK_SPLIT_HASH)
        position->side = psk_hash_side(block->text, block->size, reader->options->valid_fraction);
    block->side = position->side;
    end_part(reader, block, &length);
    const bool last = length == block->size;
    block->ends_part = block->ends_part || last;
    block->ends_document = last;
    block->empty_document = last && position->offset + length == 0;
    PSK_TRY(cut_block(reader, block, length));
    pass_block(reader, block, last);
    return PSK_OK;
}

/* ----------------------------------------------------------------------------------------------------------- records
 */

static psk_status too_long(const psk_text_reader *reader) {
    const bool jsonl = reader->format == PSK_FORMAT_JSONL;
    return psk_fail(
        PSK_ERROR_FORMAT, "%s, line %" PRId64 ": the %s that begins here is longer than %d MiB, the limit: %s",
        psk_input_name(current(reader)), reader->position.lines + 1, jsonl ? "line" : "article", PSK_RECORD_BYTES >> 20,
        jsonl ? "split it, or give its text as a file" : "if this is no WikiText, say so: --format text");
}

static psk_status next_records(psk_text_reader *reader, psk_block *block) {
    const int64_t most = PSK_RECORD_BYTES + 1; /* one more than a record has, to see that it ends */
    int64_t length = 0;
    bool last;
    while (!(last = block->size < block->capacity) &&
           (length = psk_last_record(reader->format, block->text, block->size)) == 0) {
        if (block->capacity == most)
            return too_long(reader);
        const int64_t wanted = 2 * block->capacity < most ? 2 * block->capacity : most;
        PSK_TRY(reserve(&block->text, &block->capacity, block->size, wanted));
        PSK_TRY(fill(reader, block));
    }
    block->side = current(reader)->held_out ? PSK_VALID : PSK_TRAIN;
    if (!last)
        PSK_TRY(cut_block(reader, block, length));
    pass_block(reader, block, last);
    return PSK_OK;
}

psk_status psk_text_reader_next(psk_text_reader *reader, psk_block *block, bool *end) {
    *end = reader->position.input == reader->inputs->count;
    if (*end)
        return PSK_OK;
    if (!reader->source)
        PSK_TRY(open_input(reader));
    PSK_TRY(clear_block(block));
    PSK_TRY(fill(reader, block));
    return reader->format == PSK_FORMAT_TEXT ? next_piece(reader, block) : next_records(reader, block);
}
