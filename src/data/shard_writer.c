#include "data/shard.h"

#include "base/memory.h"
#include "data/shard_header.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_TOKENS 4096

struct psk_shard_writer {
    XXH3_state_t hash; /* first: it wants the alignment that psk_alloc gives */
    FILE *file;
    char *path, *partial;
    const psk_tokenizer *tokenizer;
    psk_shard_header header;
    unsigned char buffer[BUFFER_TOKENS * 4];
};

static psk_status partial_path(const char *path, char **out) {
    const size_t size = strlen(path) + sizeof ".partial";
    PSK_TRY(psk_alloc(size, "a file name", (void **)out));
    snprintf(*out, size, "%s.partial", path);
    return PSK_OK;
}

static void store_header(const psk_shard_header *header, const char *tokenizer, unsigned char *bytes) {
    memset(bytes, 0, PSK_SHARD_HEADER_SIZE);
    memcpy(bytes, PSK_SHARD_MAGIC, strlen(PSK_SHARD_MAGIC));
    memcpy(bytes + PSK_SHARD_NAME_OFFSET, tokenizer, strnlen(tokenizer, PSK_TOKENIZER_NAME_SIZE - 1));
#define FIELD(name, offset, size) psk_store_le(bytes + (offset), header->name, size);
    PSK_SHARD_FIELDS(FIELD)
#undef FIELD
    psk_store_le(bytes + PSK_SHARD_HASHED_SIZE, XXH3_64bits(bytes, PSK_SHARD_HASHED_SIZE), 8);
}

/* ------------------------------------------------------------------------------------------------------------- opening
 */

static psk_status make_writer(const char *path, const psk_tokenizer *tokenizer, psk_shard_writer **out) {
    psk_status status;
    psk_shard_writer *writer;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *writer, "shard writer", (void **)&writer));
    XXH3_64bits_reset(&writer->hash);
    writer->tokenizer = tokenizer;
    writer->header = (psk_shard_header){.version = PSK_SHARD_VERSION,
                                        .header_size = PSK_SHARD_HEADER_SIZE,
                                        .token_bytes = tokenizer->vocab_size <= 0x10000 ? 2 : 4,
                                        .vocab_size = (uint64_t)tokenizer->vocab_size,
                                        .end_of_text = (uint64_t)tokenizer->end_of_text};
    PSK_TRY_GOTO(status, psk_strdup(path, &writer->path), failed);
    PSK_TRY_GOTO(status, partial_path(path, &writer->partial), failed);
    *out = writer;
    return PSK_OK;
failed:
    psk_shard_writer_suspend(writer);
    return status;
}

static psk_status write_bytes(psk_shard_writer *writer, const unsigned char *bytes, int64_t size) {
    if (fwrite(bytes, 1, (size_t)size, writer->file) != (size_t)size)
        return psk_file_error(writer->path, "write");
    return PSK_OK;
}

psk_status psk_shard_writer_open(const char *path, const psk_tokenizer *tokenizer, psk_shard_writer **out) {
    static const unsigned char blank[PSK_SHARD_HEADER_SIZE];
    psk_status status;
    PSK_TRY(make_writer(path, tokenizer, out));
    (*out)->file = fopen((*out)->partial, "wb");
    if (!(*out)->file)
        status = psk_file_error((*out)->partial, "create");
    else
        status = write_bytes(*out, blank, sizeof blank);
    if (status != PSK_OK) {
        psk_shard_writer_abandon(*out);
        *out = NULL;
    }
    return status;
}

/* How many of the tokens are end-of-text. */
static uint64_t count_documents(const unsigned char *bytes, int64_t count, const psk_shard_header *header) {
    const uint64_t end_of_text = header->end_of_text;
    uint64_t documents = 0;
    if (header->token_bytes == 2) {
        for (int64_t i = 0; i < count; i++)
            documents += psk_load_le(bytes + 2 * i, 2) == end_of_text;
    } else {
        for (int64_t i = 0; i < count; i++)
            documents += psk_load_le(bytes + 4 * i, 4) == end_of_text;
    }
    return documents;
}

/* Counts what is in the file now. */
static void take(psk_shard_writer *writer, const unsigned char *bytes, int64_t count) {
    XXH3_64bits_update(&writer->hash, bytes, (size_t)(count * (int64_t)writer->header.token_bytes));
    writer->header.documents += count_documents(bytes, count, &writer->header);
    writer->header.tokens += (uint64_t)count;
}

/* The file is at its beginning: reads the tokens that stay, cuts off the others. */
static psk_status take_file(psk_shard_writer *writer, int64_t tokens) {
    const int64_t size = (int64_t)writer->header.token_bytes;
    if (fseeko(writer->file, PSK_SHARD_HEADER_SIZE, SEEK_SET) != 0)
        return psk_file_error(writer->partial, "read");
    while (tokens > 0) {
        const int64_t part = tokens < BUFFER_TOKENS ? tokens : BUFFER_TOKENS;
        if (fread(writer->buffer, (size_t)size, (size_t)part, writer->file) != (size_t)part)
            return psk_fail(PSK_ERROR_FORMAT,
                            "%s is shorter than it was when the preparation stopped: remove the output folder and "
                            "prepare everything again",
                            writer->partial);
        take(writer, writer->buffer, part);
        tokens -= part;
    }
    const off_t end = (off_t)(PSK_SHARD_HEADER_SIZE + (int64_t)writer->header.tokens * size);
    if (fflush(writer->file) != 0 || ftruncate(fileno(writer->file), end) != 0 ||
        fseeko(writer->file, end, SEEK_SET) != 0)
        return psk_file_error(writer->partial, "cut off");
    return PSK_OK;
}

psk_status psk_shard_writer_resume(const char *path, const psk_tokenizer *tokenizer, int64_t tokens,
                                   psk_shard_writer **out) {
    psk_status status = PSK_OK;
    psk_shard_writer *writer;
    *out = NULL;
    PSK_TRY(make_writer(path, tokenizer, &writer));
    if (!psk_is_file(writer->partial) && psk_is_file(path)) /* it was completed after the journal was written */
        status = psk_rename(path, writer->partial);
    if (status == PSK_OK) {
        writer->file = fopen(writer->partial, "r+b");
        status = writer->file ? take_file(writer, tokens) : psk_file_error(writer->partial, "open");
    }
    if (status == PSK_OK)
        *out = writer;
    else
        psk_shard_writer_suspend(writer);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- writing
 */

static void store_tokens(unsigned char *bytes, const int32_t *tokens, int64_t count, int size) {
    if (size == 2) {
        for (int64_t i = 0; i < count; i++)
            psk_store_le(bytes + 2 * i, (uint64_t)tokens[i], 2);
    } else {
        for (int64_t i = 0; i < count; i++)
            psk_store_le(bytes + 4 * i, (uint64_t)tokens[i], 4);
    }
}

psk_status psk_shard_writer_append(psk_shard_writer *writer, const int32_t *tokens, int64_t count) {
    const int size = (int)writer->header.token_bytes;
    while (count > 0) {
        const int64_t part = count < BUFFER_TOKENS ? count : BUFFER_TOKENS;
        store_tokens(writer->buffer, tokens, part, size);
        PSK_TRY(write_bytes(writer, writer->buffer, part * size));
        take(writer, writer->buffer, part);
        tokens += part;
        count -= part;
    }
    return PSK_OK;
}

int64_t psk_shard_writer_tokens(const psk_shard_writer *writer) {
    return (int64_t)writer->header.tokens;
}

psk_status psk_shard_writer_sync(psk_shard_writer *writer) {
    if (fflush(writer->file) != 0 || fsync(fileno(writer->file)) != 0)
        return psk_file_error(writer->path, "write");
    return PSK_OK;
}

static psk_status finish(psk_shard_writer *writer) {
    unsigned char bytes[PSK_SHARD_HEADER_SIZE];
    writer->header.checksum = XXH3_64bits_digest(&writer->hash);
    store_header(&writer->header, writer->tokenizer->name, bytes);
    if (fseeko(writer->file, 0, SEEK_SET) != 0)
        return psk_file_error(writer->path, "write (seek)");
    PSK_TRY(write_bytes(writer, bytes, PSK_SHARD_HEADER_SIZE));
    PSK_TRY(psk_shard_writer_sync(writer));
    return psk_rename(writer->partial, writer->path);
}

psk_status psk_shard_writer_close(psk_shard_writer *writer) {
    const psk_status status = finish(writer);
    psk_shard_writer_suspend(writer);
    return status;
}

void psk_shard_writer_suspend(psk_shard_writer *writer) {
    if (!writer)
        return;
    if (writer->file)
        fclose(writer->file);
    psk_free(writer->path);
    psk_free(writer->partial);
    psk_free(writer);
}

void psk_shard_writer_abandon(psk_shard_writer *writer) {
    if (writer && writer->file)
        unlink(writer->partial);
    psk_shard_writer_suspend(writer);
}

psk_status psk_shard_remove(const char *path) {
    char *partial;
    PSK_TRY(partial_path(path, &partial));
    psk_status status = psk_remove_tree(partial);
    if (status == PSK_OK)
        status = psk_remove_tree(path);
    psk_free(partial);
    return status;
}
