#include "data/split_writer.h"

#include "base/memory.h"
#include "data/dataset.h"

static psk_status shard_path(const psk_split_writer *writer, int64_t index, char **path) {
    char name[PSK_SHARD_NAME_SIZE];
    psk_shard_name(writer->name, index, name);
    return psk_join_path(writer->folder, name, path);
}

int64_t psk_split_writer_shards(const psk_split_writer *writer) {
    return (writer->tokens + writer->shard_tokens - 1) / writer->shard_tokens;
}

/* The first of several shards from `index` on that is there goes, with its partial file; false: there was none. */
static psk_status remove_shard(const psk_split_writer *writer, int64_t index, bool *more) {
    char *path;
    *more = false;
    PSK_TRY(shard_path(writer, index, &path));
    *more = psk_is_file(path);
    const psk_status status = psk_shard_remove(path);
    psk_free(path);
    return status;
}

psk_status psk_split_writer_open(psk_split_writer *writer) {
    const int64_t whole = writer->tokens / writer->shard_tokens, rest = writer->tokens % writer->shard_tokens;
    bool more = true;
    for (int64_t index = whole + (rest > 0); more; index++)
        PSK_TRY(remove_shard(writer, index, &more));
    if (rest == 0)
        return PSK_OK;
    char *path;
    PSK_TRY(shard_path(writer, whole, &path));
    const psk_status status = psk_shard_writer_resume(path, writer->tokenizer, rest, &writer->shard);
    psk_free(path);
    return status;
}

static psk_status open_next(psk_split_writer *writer) {
    char *path;
    PSK_TRY(shard_path(writer, writer->tokens / writer->shard_tokens, &path));
    const psk_status status = psk_shard_writer_open(path, writer->tokenizer, &writer->shard);
    psk_free(path);
    return status;
}

/* Remembers a write that failed: what it lost is not written again, though a sync after it may succeed. */
static psk_status note(psk_split_writer *writer, psk_status status) {
    writer->failed = writer->failed || status != PSK_OK;
    return status;
}

psk_status psk_split_writer_close(psk_split_writer *writer) {
    psk_shard_writer *const shard = writer->shard;
    writer->shard = NULL;
    writer->completed = true;
    return shard ? note(writer, psk_shard_writer_close(shard)) : PSK_OK;
}

psk_status psk_split_writer_append(psk_split_writer *writer, const int32_t *tokens, int64_t count, int64_t *taken) {
    if (!writer->shard)
        PSK_TRY(open_next(writer));
    const int64_t room = writer->shard_tokens - psk_shard_writer_tokens(writer->shard);
    *taken = count < room ? count : room;
    PSK_TRY(note(writer, psk_shard_writer_append(writer->shard, tokens, *taken)));
    writer->tokens += *taken;
    return *taken == room ? psk_split_writer_close(writer) : PSK_OK;
}

psk_status psk_split_writer_sync(psk_split_writer *writer) {
    if (writer->failed)
        return psk_fail(PSK_ERROR_FILE, "%s: a write to the %s shards failed before, so they lack some of their tokens",
                        writer->folder, writer->name);
    writer->completed = false;
    return writer->shard ? note(writer, psk_shard_writer_sync(writer->shard)) : PSK_OK;
}

void psk_split_writer_suspend(psk_split_writer *writer) {
    psk_shard_writer_suspend(writer->shard);
    writer->shard = NULL;
}
