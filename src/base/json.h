/* JSON through jansson, with our messages: every getter names file, key, what was found and what was expected.
 * Objects are jansson's json_t; the caller owns what it loads and releases it with json_decref. */
#ifndef PSK_JSON_H
#define PSK_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Makes jansson use psk_alloc's failure hook. Called by load, parse and save; safe to repeat. Code that builds objects
 * of its own calls it first: psk_json_set tells lack of memory from a bad value by what failed since then. */
void psk_json_init(void);

/* The object in a file (limit 64 MiB) or in memory; `where` names the source in messages. Duplicate keys are refused.
 */
psk_status psk_json_load(const char *path, json_t **out);
psk_status psk_json_parse(const char *text, size_t size, const char *where, json_t **out);
/* json_dumps (flags as there) that notices when memory ran out on the way; *text is released by psk_free. */
psk_status psk_json_dump(const json_t *object, const char *where, size_t flags, char **text);
psk_status psk_json_save(const char *path, const json_t *object); /* atomic, indented, keys in order of insertion */

/* object[key] into *value if the key is there, *value unchanged if not. Wrong type, or outside [low, high]:
 * PSK_ERROR_FORMAT. */
psk_status psk_json_int(const json_t *object, const char *where, const char *key, int64_t low, int64_t high,
                        int64_t *value);
psk_status psk_json_double(const json_t *object, const char *where, const char *key, double low, double high,
                           double *value);
psk_status psk_json_bool(const json_t *object, const char *where, const char *key, bool *value);
psk_status psk_json_string(const json_t *object, const char *where, const char *key,
                           const char **value); /* owned by object */

/* json_object_set_new whose failure is a status. Takes the reference to `value`, which may be NULL: PSK_ERROR_MEMORY,
 * or PSK_ERROR_ARGUMENT if jansson refused to make it: not finite, not UTF-8. */
psk_status psk_json_set(json_t *object, const char *key, json_t *value);

#endif
