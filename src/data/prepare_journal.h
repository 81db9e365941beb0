/* prepare.json of a data folder: how it was made and, until it is finished, where to go on. docs/formats.md has its
 * keys. */
#ifndef PSK_PREPARE_JOURNAL_H
#define PSK_PREPARE_JOURNAL_H

#include "data/text_reader.h"

#define PSK_JOURNAL_FILE "prepare.json"

typedef struct psk_journal {
    psk_position position;     /* what is before it has been written */
    int64_t consumed;          /* bytes of the inputs, as they lie on the disk, for that */
    psk_prepare_result result; /* so far; `shards` counts only once it is finished */
    bool finished;
} psk_journal;

/* Atomic. tokenizer: its name. */
psk_status psk_journal_write(const psk_prepare_options *options, const char *tokenizer, const psk_input_list *inputs,
                             const psk_journal *journal);

/* The journal of options->output. *found: there is one that is not finished. It must be of the same options, tokenizer
 * and inputs (as far as they were read): ARGUMENT naming what differs. ARGUMENT if the folder is finished. */
psk_status psk_journal_read(const psk_prepare_options *options, const char *tokenizer, const psk_input_list *inputs,
                            psk_journal *out, bool *found);

/* The result of a folder, whoever made it; *found: it has a prepare.json. Errors: FORMAT, also for a folder that is not
 * finished. */
psk_status psk_journal_read_finished(const char *folder, psk_prepare_result *out, bool *found);

psk_status psk_journal_remove(const char *folder);

#endif
