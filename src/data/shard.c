#include "data/shard.h"

#include "base/memory.h"
#include "data/little_endian.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <string.h>

#define MAGIC       "PSKSHARD"
#define VERSION     1
#define HEADER_SIZE 128
#define HASHED_SIZE 120 /* of the header: all but its own checksum */
#define NAME_OFFSET 48
#define NAME_SIZE   32

/* The numbers of the header: field, offset, bytes. Zero fields are written and must be zero when read. */
#define SHARD_FIELDS(X)                                                                                                \
    X(version, 8, 4)                                                                                                   \
    X(header_size, 12, 4)                                                                                              \
    X(token_bytes, 16, 4)                                                                                              \
    X(vocab_size, 20, 4)                                                                                               \
    X(tokens, 24, 8)                                                                                                   \
    X(documents, 32, 8)                                                                                                \
    X(end_of_text, 40, 4)                                                                                              \
    X(reserved0, 44, 4)                                                                                                \
    X(reserved1, 80, 8)                                                                                                \
    X(reserved2, 88, 8)                                                                                                \
    X(reserved3, 96, 8)                                                                                                \
    X(reserved4, 104, 8)                                                                                               \
    X(checksum, 112, 8)                                                                                                \
    X(header_checksum, 120, 8)

typedef struct shard_header {
#define FIELD(name, offset, bytes) uint64_t name;
    SHARD_FIELDS(FIELD)
#undef FIELD
} shard_header;

static void store_header(const shard_header *header, const char *tokenizer, unsigned char bytes[HEADER_SIZE]) {
    memset(bytes, 0, HEADER_SIZE);
    memcpy(bytes, MAGIC, strlen(MAGIC));
    memcpy(bytes + NAME_OFFSET, tokenizer, strnlen(tokenizer, NAME_SIZE - 1));
#define FIELD(name, offset, size) psk_store_le(bytes + (offset), header->name, size);
    SHARD_FIELDS(FIELD)
#undef FIELD
    psk_store_le(bytes + HASHED_SIZE, XXH3_64bits(bytes, HASHED_SIZE), 8);
}

static shard_header load_header(const unsigned char *bytes) {
    shard_header header;
#define FIELD(name, offset, size) header.name = psk_load_le(bytes + (offset), size);
    SHARD_FIELDS(FIELD)
#undef FIELD
    return header;
}

/* ----------------------------------------------------------------------------------------------------------- reading
 */

/* Is this file a shard at all, and one that we know how to read? */
static psk_status check_kind(const char *path, const psk_mapping *mapping) {
    static const char lfs[] = "version https://git-lfs";
    const size_t size = mapping->size, magic = strlen(MAGIC);
    if (size == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s is empty: a shard has at least %d bytes", path, HEADER_SIZE);
    if (size >= sizeof lfs - 1 && memcmp(mapping->data, lfs, sizeof lfs - 1) == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s is a Git LFS pointer, not a shard: fetch the file itself (git lfs pull)",
                        path);
    if (memcmp(mapping->data, MAGIC, size < magic ? size : magic) != 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s is not a shard: it does not begin with \"%s\"", path, MAGIC);
    if (size < HEADER_SIZE)
        return psk_fail(PSK_ERROR_FORMAT, "%s is truncated: %zu bytes, its header alone has %d", path, size,
                        HEADER_SIZE);
    const uint64_t version = psk_load_le(mapping->data + 8, 4);
    if (version != VERSION)
        return psk_fail(PSK_ERROR_FORMAT, "%s: shard version %" PRIu64 ", expected %d: prepare the data again", path,
                        version, VERSION);
    return PSK_OK;
}

static psk_status bad_field(const char *path, const char *field, uint64_t value, const char *expected) {
    return psk_fail(PSK_ERROR_FORMAT, "%s: %s is %" PRIu64 ", expected %s", path, field, value, expected);
}

static psk_status check_fields(const char *path, const psk_mapping *mapping, const shard_header *header) {
    if (header->header_checksum != XXH3_64bits(mapping->data, HASHED_SIZE))
        return psk_fail(PSK_ERROR_FORMAT, "%s: the header's checksum is wrong: the file is damaged", path);
    if (header->header_size != HEADER_SIZE)
        return bad_field(path, "header_size", header->header_size, "128");
    if (header->token_bytes != 2 && header->token_bytes != 4)
        return bad_field(path, "token_bytes", header->token_bytes, "2 or 4");
    if (header->vocab_size < 1 || header->vocab_size > (header->token_bytes == 2 ? 0x10000u : 0x80000000u))
        return bad_field(path, "vocab_size", header->vocab_size, "1 ... 2^(8 token_bytes), at most 2^31");
    if (header->end_of_text >= header->vocab_size)
        return bad_field(path, "end_of_text", header->end_of_text, "a token below vocab_size");
    if (header->documents > header->tokens)
        return bad_field(path, "documents", header->documents, "at most the number of tokens");
    if (header->reserved0 | header->reserved1 | header->reserved2 | header->reserved3 | header->reserved4)
        return psk_fail(PSK_ERROR_FORMAT, "%s: a reserved field of the header is not 0", path);
    if (mapping->data[NAME_OFFSET] == 0 || mapping->data[NAME_OFFSET + NAME_SIZE - 1] != 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the tokenizer's name is empty or longer than %d bytes", path,
                        NAME_SIZE - 1);
    const uint64_t payload = mapping->size - HEADER_SIZE;
    if (header->tokens > payload / header->token_bytes || header->tokens * header->token_bytes != payload)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: the header says %" PRIu64 " tokens of %" PRIu64 " bytes, but %" PRIu64
                        " bytes follow it: the file is truncated or has something appended",
                        path, header->tokens, header->token_bytes, payload);
    return PSK_OK;
}

static int32_t token_at(const psk_shard *shard, int64_t index) {
    const int bytes = (int)shard->info.token_bytes;
    return (int32_t)psk_load_le(shard->mapping.data + HEADER_SIZE + index * bytes, bytes);
}

static psk_status check_token(const psk_shard *shard, int64_t index, int32_t token) {
    if (token >= 0 && token < shard->info.vocab_size)
        return PSK_OK;
    return psk_fail(PSK_ERROR_FORMAT, "%s: token %" PRId64 " is %" PRIu32 ", vocab_size is %" PRId64, shard->path,
                    index, (uint32_t)token, shard->info.vocab_size);
}

static psk_status check_payload(const psk_shard *shard) {
    const uint64_t checksum = XXH3_64bits(shard->mapping.data + HEADER_SIZE, shard->mapping.size - HEADER_SIZE);
    if (checksum != shard->info.checksum)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: checksum of the tokens is %016" PRIx64 ", the header says %016" PRIx64
                        ": the file is damaged",
                        shard->path, checksum, shard->info.checksum);
    int64_t documents = 0;
    for (int64_t i = 0; i < shard->info.tokens; i++) {
        const int32_t token = token_at(shard, i);
        PSK_TRY(check_token(shard, i, token));
        documents += token == shard->end_of_text;
    }
    if (documents != shard->info.documents)
        return psk_fail(PSK_ERROR_FORMAT, "%s: %" PRId64 " tokens are end-of-text, the header says %" PRId64,
                        shard->path, documents, shard->info.documents);
    return PSK_OK;
}

psk_status psk_shard_open(const char *path, psk_shard_check check, psk_shard *out) {
    psk_status status;
    psk_shard shard = {0};
    *out = shard;
    PSK_TRY(psk_strdup(path, &shard.path));
    PSK_TRY_GOTO(status, psk_map_file(path, &shard.mapping), failed);
    PSK_TRY_GOTO(status, check_kind(path, &shard.mapping), failed);
    const shard_header header = load_header(shard.mapping.data);
    PSK_TRY_GOTO(status, check_fields(path, &shard.mapping, &header), failed);
    shard.info = (psk_shard_info){.version = (int64_t)header.version,
                                  .tokens = (int64_t)header.tokens,
                                  .documents = (int64_t)header.documents,
                                  .vocab_size = (int64_t)header.vocab_size,
                                  .token_bytes = (int64_t)header.token_bytes,
                                  .file_bytes = (int64_t)shard.mapping.size,
                                  .checksum = header.checksum};
    memcpy(shard.info.tokenizer, shard.mapping.data + NAME_OFFSET, NAME_SIZE);
    shard.end_of_text = (int32_t)header.end_of_text;
    if (check == PSK_SHARD_WHOLE)
        PSK_TRY_GOTO(status, check_payload(&shard), failed);
    *out = shard;
    return PSK_OK;
failed:
    psk_shard_close(&shard);
    return status;
}

void psk_shard_close(psk_shard *shard) {
    psk_unmap_file(&shard->mapping);
    psk_free(shard->path);
    *shard = (psk_shard){0};
}

psk_status psk_shard_read(const psk_shard *shard, int64_t first, int64_t count, int32_t *tokens) {
    PSK_ASSERT(first >= 0 && count >= 0 && first <= shard->info.tokens - count);
    for (int64_t i = 0; i < count; i++) {
        tokens[i] = token_at(shard, first + i);
        PSK_TRY(check_token(shard, first + i, tokens[i]));
    }
    return PSK_OK;
}

psk_status psk_shard_read_info(const char *path, int check, psk_shard_info *info) {
    psk_shard shard;
    if (!path || !info)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_shard_read_info: path and info must not be NULL");
    PSK_TRY(psk_shard_open(path, check ? PSK_SHARD_WHOLE : PSK_SHARD_HEADER, &shard));
    *info = shard.info;
    psk_shard_close(&shard);
    return PSK_OK;
}

/* ----------------------------------------------------------------------------------------------------------- writing
 */

#define BUFFER_TOKENS 4096

struct psk_shard_writer {
    XXH3_state_t hash; /* first: it wants 64-byte alignment, which psk_alloc gives */
    psk_atomic_file *file;
    const psk_tokenizer *tokenizer;
    shard_header header;
    unsigned char buffer[BUFFER_TOKENS * 4];
};

psk_status psk_shard_writer_open(const char *path, const psk_tokenizer *tokenizer, psk_shard_writer **out) {
    psk_status status;
    psk_shard_writer *writer;
    static const unsigned char blank[HEADER_SIZE];
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *writer, "shard writer", (void **)&writer));
    XXH3_64bits_reset(&writer->hash);
    writer->tokenizer = tokenizer;
    writer->header = (shard_header){.version = VERSION,
                                    .header_size = HEADER_SIZE,
                                    .token_bytes = tokenizer->vocab_size <= 0x10000 ? 2 : 4,
                                    .vocab_size = (uint64_t)tokenizer->vocab_size,
                                    .end_of_text = (uint64_t)tokenizer->end_of_text};
    PSK_TRY_GOTO(status, psk_atomic_open(path, &writer->file), failed);
    PSK_TRY_GOTO(status, psk_atomic_write(writer->file, blank, HEADER_SIZE), failed);
    *out = writer;
    return PSK_OK;
failed:
    psk_shard_writer_abandon(writer);
    return status;
}

psk_status psk_shard_writer_append(psk_shard_writer *writer, const int32_t *tokens, int64_t count) {
    const int bytes = (int)writer->header.token_bytes;
    while (count > 0) {
        const int64_t part = count < BUFFER_TOKENS ? count : BUFFER_TOKENS;
        for (int64_t i = 0; i < part; i++) {
            PSK_ASSERT(tokens[i] >= 0 && tokens[i] < writer->tokenizer->vocab_size);
            psk_store_le(writer->buffer + i * bytes, (uint64_t)tokens[i], bytes);
            writer->header.documents += tokens[i] == writer->tokenizer->end_of_text;
        }
        XXH3_64bits_update(&writer->hash, writer->buffer, (size_t)(part * bytes));
        PSK_TRY(psk_atomic_write(writer->file, writer->buffer, (size_t)(part * bytes)));
        writer->header.tokens += (uint64_t)part;
        tokens += part;
        count -= part;
    }
    return PSK_OK;
}

int64_t psk_shard_writer_tokens(const psk_shard_writer *writer) {
    return (int64_t)writer->header.tokens;
}

psk_status psk_shard_writer_close(psk_shard_writer *writer) {
    psk_status status;
    unsigned char bytes[HEADER_SIZE];
    writer->header.checksum = XXH3_64bits_digest(&writer->hash);
    store_header(&writer->header, writer->tokenizer->name, bytes);
    PSK_TRY_GOTO(status, psk_atomic_seek(writer->file, 0), done);
    PSK_TRY_GOTO(status, psk_atomic_write(writer->file, bytes, HEADER_SIZE), done);
    status = psk_atomic_commit(writer->file);
    writer->file = NULL;
done:
    psk_shard_writer_abandon(writer);
    return status;
}

void psk_shard_writer_abandon(psk_shard_writer *writer) {
    if (!writer)
        return;
    psk_atomic_abandon(writer->file);
    psk_free(writer);
}
