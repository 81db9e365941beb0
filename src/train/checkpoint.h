/* The run folder and its checkpoints (docs/formats.md):
 *
 *     OUTPUT/checkpoints/step-00000500/
 *         config.json, model.safetensors, tokenizer files: a model folder
 *         optimizer.safetensors, state.json
 *     OUTPUT/last, OUTPUT/best: relative symbolic links to one of them
 *
 * A checkpoint is written to checkpoints/incomplete-step-00000500, every file synced, and renamed when it is whole, so
 * a crash or a full disk at any moment leaves the ones before as they were. */
#ifndef PSK_CHECKPOINT_H
#define PSK_CHECKPOINT_H

#include "base/json.h"
#include "data/order.h"
#include "data/tokenizer.h"
#include "model/model.h"

/* All of a run that is not a tensor. */
typedef struct psk_train_state {
    int64_t step, tokens;
    psk_cursor cursor;
    double best_loss;  /* the least validation loss; NaN: none yet */
    int64_t best_step; /* of the checkpoint that `best` points to; 0: none yet */
    double seconds;    /* of training, all sessions together */
    uint64_t seed;
    int64_t context;
    uint64_t data; /* fingerprint of the training shards */
} psk_train_state;

/* What a checkpoint is written from and read into; borrowed. */
typedef struct psk_checkpoint {
    const char *output;
    psk_model *model;
    float *m, *v; /* moments, laid out as the weights */
    psk_train_state *state;
    const psk_tokenizer *tokenizer; /* of the training data, whose files go with the model; NULL: none. Not read */
} psk_checkpoint;

/* OUTPUT/checkpoints is made, remains of interrupted writes are removed. */
psk_status psk_run_folder_prepare(const char *output);

/* *path of the checkpoint with the highest step, NULL if there is none; released by psk_free. */
psk_status psk_checkpoint_newest(const char *output, char **path);

/* Writes the checkpoint of state->step unless it is there, moves the links, then removes all but the newest keep_last
 * (at least one) and the best. Errors: FILE, with the space needed and the space free when the disk is too small; the
 * checkpoints before are whole then. */
psk_status psk_checkpoint_write(const psk_checkpoint *checkpoint, const json_t *options, int64_t keep_last);

/* Points `last` to the checkpoint of state->step and `best` to that of state->best_step, if there is one. A run that
 * was killed between a checkpoint and its links needs it when it is resumed. */
psk_status psk_checkpoint_link(const psk_checkpoint *checkpoint);

/* Reads the checkpoint at `path` into model, m, v and state, and *options (released by json_decref). The state's seed,
 * context and data must be set to the run's own on entry: those of the checkpoint have to agree. Files from before
 * best_step was written lack it: then `best` itself tells. Errors: FORMAT or FILE
 * naming file and field; ARGUMENT if configuration, seed, context or data differ. */
psk_status psk_checkpoint_read(const char *path, const psk_checkpoint *checkpoint, json_t **options);

/* config.json of the model must equal this one, else ARGUMENT naming the key and both values. */
psk_status psk_config_must_agree(const char *path, const psk_model_config *config);

#endif
