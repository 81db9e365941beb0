#include "data/dataset.h"

#include "base/memory.h"
#include "data/file_names.h"
#include "data/prepare_journal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void psk_shard_name(const char *split, int64_t index, char name[PSK_SHARD_NAME_SIZE]) {
    snprintf(name, PSK_SHARD_NAME_SIZE, "%.16s-%05" PRId64 ".psk", split, index);
}

static psk_status check_folder(const char *folder, psk_dataset *dataset) {
    psk_status status;
    psk_prepare_result unused;
    bool found;
    char *path;
    if (!psk_is_folder(folder))
        return psk_fail(PSK_ERROR_FILE, "the data folder %s does not exist: make it with `polysketch prepare`", folder);
    PSK_TRY(psk_journal_read_finished(folder, &unused, &found)); /* an unfinished one is refused */
    PSK_TRY(psk_join_path(folder, PSK_TOKENIZER_FILE, &path));
    if (!psk_is_file(path))
        status = psk_fail(PSK_ERROR_FORMAT,
                          "%s has no %s: it was not made by `polysketch prepare`, or that did not end well", folder,
                          PSK_TOKENIZER_FILE);
    else
        status = psk_tokenizer_load(folder, &dataset->tokenizer);
    psk_free(path);
    return status;
}

/* Shards of the split in the folder, and that their numbers are 0 ... count - 1. */
static psk_status count_shards(const char *folder, const char *split, int64_t *count) {
    psk_status status = PSK_OK;
    char **names, prefix[PSK_SHARD_NAME_SIZE], expected[PSK_SHARD_NAME_SIZE];
    int64_t entries;
    *count = 0;
    PSK_TRY(psk_list_folder(folder, &names, &entries));
    snprintf(prefix, sizeof prefix, "%.16s-", split);
    for (int64_t i = 0; i < entries; i++) {
        if (strncmp(names[i], prefix, strlen(prefix)) != 0 || !psk_name_ends(names[i], ".psk"))
            continue;
        psk_shard_name(split, *count, expected);
        if (strcmp(names[i], expected) != 0) {
            status = psk_fail(PSK_ERROR_FORMAT, "%s: shard %s is missing (the next one there is %s)", folder, expected,
                              names[i]);
            break;
        }
        ++*count;
    }
    psk_free_names(names, entries);
    return status;
}

static psk_status open_shard(const char *folder, const char *split, int64_t index, psk_dataset *dataset) {
    psk_status status;
    char name[PSK_SHARD_NAME_SIZE], *path;
    psk_shard *shard = &dataset->shards[index];
    psk_shard_name(split, index, name);
    PSK_TRY(psk_join_path(folder, name, &path));
    PSK_TRY_GOTO(status, psk_shard_open(path, PSK_SHARD_WHOLE, shard), done);
    if (strcmp(shard->info.tokenizer, dataset->tokenizer->name) != 0 ||
        shard->info.vocab_size != dataset->tokenizer->vocab_size ||
        shard->end_of_text != dataset->tokenizer->end_of_text)
        status =
            psk_fail(PSK_ERROR_FORMAT, "%s: made by tokenizer \"%s\" (vocab_size %" PRId64 "), but %s says \"%s\"",
                     path, shard->info.tokenizer, shard->info.vocab_size, PSK_TOKENIZER_FILE, dataset->tokenizer->name);
done:
    psk_free(path);
    return status;
}

psk_status psk_dataset_open(const char *folder, const char *split, psk_dataset *out) {
    psk_status status;
    psk_dataset dataset = {0};
    int64_t count = 0;
    *out = dataset;
    PSK_TRY(check_folder(folder, &dataset));
    PSK_TRY_GOTO(status, count_shards(folder, split, &count), failed);
    PSK_TRY_GOTO(status, psk_alloc_zero((size_t)count * sizeof *dataset.shards, "shards", (void **)&dataset.shards),
                 failed);
    dataset.count = count;
    PSK_TRY_GOTO(status,
                 psk_alloc_zero((size_t)(count + 1) * sizeof *dataset.starts, "shard starts", (void **)&dataset.starts),
                 failed);
    for (int64_t i = 0; i < count; i++) {
        PSK_TRY_GOTO(status, open_shard(folder, split, i, &dataset), failed);
        dataset.tokens += dataset.shards[i].info.tokens;
        dataset.starts[i + 1] = dataset.tokens;
        const uint64_t facts[3] = {dataset.fingerprint, (uint64_t)dataset.shards[i].info.tokens,
                                   dataset.shards[i].info.checksum};
        dataset.fingerprint = XXH3_64bits(facts, sizeof facts);
    }
    *out = dataset;
    return PSK_OK;
failed:
    psk_dataset_close(&dataset);
    return status;
}

void psk_dataset_close(psk_dataset *dataset) {
    for (int64_t i = 0; dataset->shards && i < dataset->count; i++)
        psk_shard_close(&dataset->shards[i]);
    psk_free(dataset->shards);
    psk_free(dataset->starts);
    psk_tokenizer_free(dataset->tokenizer);
    *dataset = (psk_dataset){0};
}

/* The shard that holds token `index`: starts[shard] <= index < starts[shard + 1]. */
static int64_t find_shard(const psk_dataset *dataset, int64_t index) {
    int64_t low = 0, high = dataset->count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (dataset->starts[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

psk_status psk_dataset_read(const psk_dataset *dataset, int64_t first, int64_t count, int32_t *tokens) {
    PSK_ASSERT(dataset->tokens >= 1 && first >= 0);
    while (count > 0) {
        const int64_t index = first % dataset->tokens;
        const int64_t shard = find_shard(dataset, index);
        const int64_t left = dataset->starts[shard + 1] - index;
        const int64_t part = count < left ? count : left;
        PSK_TRY(psk_shard_read(&dataset->shards[shard], index - dataset->starts[shard], part, tokens));
        first += part;
        tokens += part;
        count -= part;
    }
    return PSK_OK;
}
