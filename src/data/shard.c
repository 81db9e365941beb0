#include "data/shard.h"

#include "base/memory.h"
#include "data/shard_header.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <string.h>

#define MAGIC       PSK_SHARD_MAGIC
#define VERSION     PSK_SHARD_VERSION
#define HEADER_SIZE PSK_SHARD_HEADER_SIZE
#define NAME_OFFSET PSK_SHARD_NAME_OFFSET
#define NAME_SIZE   PSK_TOKENIZER_NAME_SIZE

static psk_shard_header load_header(const unsigned char *bytes) {
    psk_shard_header header;
#define FIELD(name, offset, size) header.name = psk_load_le(bytes + (offset), size);
    PSK_SHARD_FIELDS(FIELD)
#undef FIELD
    return header;
}

/* ----------------------------------------------------------------------------------------------------------- reading
 */

/* Is this file a shard at all, and one that we know how to read? */
static psk_status check_kind(const char *path, const psk_mapping *mapping) {
    const size_t size = mapping->size, magic = strlen(MAGIC);
    if (size == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s is empty: a shard has at least %d bytes", path, HEADER_SIZE);
    PSK_TRY(psk_refuse_pointer(path, mapping->data, size));
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

static psk_status check_fields(const char *path, const psk_mapping *mapping, const psk_shard_header *header) {
    if (header->header_checksum != XXH3_64bits(mapping->data, PSK_SHARD_HASHED_SIZE))
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

/* tokens[0 .. count) from `first` on, as they are in the file. */
static void load_tokens(const psk_shard *shard, int64_t first, int64_t count, int32_t *tokens) {
    const unsigned char *bytes = shard->mapping.data + HEADER_SIZE + first * shard->info.token_bytes;
    if (shard->info.token_bytes == 2) {
        for (int64_t i = 0; i < count; i++)
            tokens[i] = (int32_t)psk_load_le(bytes + 2 * i, 2);
    } else {
        for (int64_t i = 0; i < count; i++)
            tokens[i] = (int32_t)psk_load_le(bytes + 4 * i, 4);
    }
}

static psk_status check_payload(const psk_shard *shard) {
    const uint64_t checksum = XXH3_64bits(shard->mapping.data + HEADER_SIZE, shard->mapping.size - HEADER_SIZE);
    if (checksum != shard->info.checksum)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: checksum of the tokens is %016" PRIx64 ", the header says %016" PRIx64
                        ": the file is damaged",
                        shard->path, checksum, shard->info.checksum);
    int32_t tokens[1024];
    int64_t documents = 0, part;
    for (int64_t first = 0; first < shard->info.tokens; first += part) {
        part = shard->info.tokens - first < 1024 ? shard->info.tokens - first : 1024;
        PSK_TRY(psk_shard_read(shard, first, part, tokens));
        for (int64_t i = 0; i < part; i++)
            documents += tokens[i] == shard->end_of_text;
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
    const psk_shard_header header = load_header(shard.mapping.data);
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
    uint32_t largest = 0; /* a negative number is larger than any token */
    load_tokens(shard, first, count, tokens);
    for (int64_t i = 0; i < count; i++)
        largest = (uint32_t)tokens[i] > largest ? (uint32_t)tokens[i] : largest;
    if (largest < (uint64_t)shard->info.vocab_size)
        return PSK_OK;
    int64_t bad = 0;
    while ((uint32_t)tokens[bad] < (uint64_t)shard->info.vocab_size)
        bad++;
    return psk_fail(PSK_ERROR_FORMAT, "%s: token %" PRId64 " is %" PRIu32 ", vocab_size is %" PRId64, shard->path,
                    first + bad, (uint32_t)tokens[bad], shard->info.vocab_size);
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
