/* Byte-level BPE, GPT-2's kind of vocabulary, before and beside the tokenizer that is made of it (bpe.c). */
#ifndef PSK_BPE_H
#define PSK_BPE_H

#include "base/json.h"
#include "data/bpe_merge.h"

/* A token with a meaning of its own and its name in the file. */
typedef struct psk_bpe_special {
    int32_t id;
    char *name; /* released by psk_free */
} psk_bpe_special;

/* What a vocabulary consists of, before it is a tokenizer. All zero is empty. */
typedef struct psk_bpe_parts {
    int64_t vocab_size;
    char *text;      /* as in psk_tokenizer; special tokens have none */
    int64_t *starts; /* vocab_size + 1 */
    psk_merge *merges;
    int64_t merge_count;
    psk_bpe_special *specials;
    int64_t special_count;
    int32_t end_of_text; /* -1: none */
    int32_t bytes[256];  /* the tokens of single bytes */
} psk_bpe_parts;

void psk_bpe_parts_free(psk_bpe_parts *parts); /* accepts an empty one */

/* Reading (bpe_read.c). Errors: FILE, FORMAT naming file and line or entry, UNSUPPORTED, MEMORY; parts are empty then.
 */
psk_status psk_bpe_read_pair(const char *vocab_path, const char *merges_path, psk_bpe_parts *parts);
psk_status psk_bpe_read_json(const json_t *object, const char *path, psk_bpe_parts *parts); /* of a tokenizer.json */

/* FOLDER/tokenizer.json, as Hugging Face's GPT-2 has it; atomic (bpe_write.c). */
psk_status psk_bpe_write(const psk_bpe_parts *parts, const char *folder);

#endif
