/* The options of a run: one table of names, places and ranges that feeds the check, options.json and reading it. */
#ifndef PSK_TRAIN_OPTIONS_H
#define PSK_TRAIN_OPTIONS_H

#include "base/json.h"

/* ARGUMENT naming the first option out of range, its value and its range. */
psk_status psk_train_options_check(const psk_train_options *options);

/* *out: an object of every option but output and resume; released by json_decref. `data` becomes an absolute path. */
psk_status psk_train_options_to_json(const psk_train_options *options, json_t **out);

/* All options of such an object; options->data belongs to `object`, output and resume are left alone. */
psk_status psk_train_options_from_json(const json_t *object, const char *where, psk_train_options *options);

/* The names of the options that differ, "steps, learning_rate" ("" if none, "data" never), cut to `capacity`. */
void psk_train_options_changes(const json_t *before, const json_t *now, char *names, size_t capacity);

#define PSK_OPTIONS_FILE "options.json"

#endif
