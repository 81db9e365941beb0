#include "base/json.h"

#include "base/files.h"
#include "base/memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT  ((size_t)64 << 20)
#define SHOWN_BYTES 60 /* of a wrong value, in messages */

/* Whether an allocation of jansson has failed in this thread since psk_json_init. jansson itself may not say so: in
 * version 2.14 a buffer that could not grow loses a character, of a string read or of the text written, and all goes
 * on. */
static _Thread_local bool out_of_memory;

/* While text is being read, a failure that a test asks for is noted and the block given all the same: where the lost
 * character is the quote that ends a string, jansson would copy on behind its buffers. */
static _Thread_local bool reading;

static void *json_allocate(size_t bytes) {
    const bool fails = psk_alloc_fails();
    void *block = fails && !reading ? NULL : malloc(bytes);
    if (fails || !block)
        out_of_memory = true;
    return block;
}

static void set_functions(void) {
    json_set_alloc_funcs(json_allocate, free);
}

void psk_json_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_functions);
    out_of_memory = false;
}

psk_status psk_json_parse(const char *text, size_t size, const char *where, json_t **out) {
    psk_json_init();
    *out = NULL;
    json_error_t error;
    reading = true;
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    reading = false;
    if (out_of_memory) {
        json_decref(object);
        return psk_fail(PSK_ERROR_MEMORY, "%s: out of memory while reading JSON of %zu bytes", where, size);
    }
    if (!object)
        return psk_fail(PSK_ERROR_FORMAT, "%s: not valid JSON: line %d, column %d: %s", where, error.line, error.column,
                        error.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return psk_fail(PSK_ERROR_FORMAT, "%s: valid JSON, but not an object: it has to start with {", where);
    }
    *out = object;
    return PSK_OK;
}

psk_status psk_json_load(const char *path, json_t **out) {
    char *text;
    size_t size;
    *out = NULL;
    PSK_TRY(psk_read_file(path, FILE_LIMIT, &text, &size));
    const psk_status status = psk_json_parse(text, size, path, out);
    psk_free(text);
    return status;
}

psk_status psk_json_dump(const json_t *object, const char *where, size_t flags, char **text) {
    psk_json_init();
    *text = json_dumps(object, flags);
    if (*text && !out_of_memory)
        return PSK_OK;
    free(*text);
    *text = NULL;
    return psk_fail(PSK_ERROR_MEMORY, "%s: out of memory while writing JSON", where);
}

psk_status psk_json_save(const char *path, const json_t *object) {
    char *text;
    PSK_TRY(psk_json_dump(object, path, JSON_INDENT(2), &text));
    const size_t length = strlen(text);
    text[length] = '\n'; /* in place of the 0 byte, which the file does not have */
    const psk_status status = psk_write_file(path, text, length + 1);
    psk_free(text);
    return status;
}

/* "where: "key" is <value>, expected <expected>" */
static psk_status wrong_value(const char *where, const char *key, const json_t *value, const char *expected) {
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const psk_status status =
        psk_fail(PSK_ERROR_FORMAT, "%s: \"%s\" is %.*s%s, expected %s", where, key, SHOWN_BYTES,
                 shown ? shown : "of another type", shown && strlen(shown) > SHOWN_BYTES ? "..." : "", expected);
    free(shown);
    return status;
}

psk_status psk_json_int(const json_t *object, const char *where, const char *key, int64_t low, int64_t high,
                        int64_t *value) {
    const json_t *found = json_object_get(object, key);
    if (!found)
        return PSK_OK;
    const int64_t number = json_integer_value(found);
    if (!json_is_integer(found) || number < low || number > high) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, low, high);
        return wrong_value(where, key, found, expected);
    }
    *value = number;
    return PSK_OK;
}

psk_status psk_json_double(const json_t *object, const char *where, const char *key, double low, double high,
                           double *value) {
    const json_t *found = json_object_get(object, key);
    if (!found)
        return PSK_OK;
    const double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= low && number <= high)) {
        char expected[96];
        snprintf(expected, sizeof expected, "a number from %g to %g", low, high);
        return wrong_value(where, key, found, expected);
    }
    *value = number;
    return PSK_OK;
}

psk_status psk_json_bool(const json_t *object, const char *where, const char *key, bool *value) {
    const json_t *found = json_object_get(object, key);
    if (!found)
        return PSK_OK;
    if (!json_is_boolean(found))
        return wrong_value(where, key, found, "true or false");
    *value = json_is_true(found);
    return PSK_OK;
}

psk_status psk_json_string(const json_t *object, const char *where, const char *key, const char **value) {
    const json_t *found = json_object_get(object, key);
    if (!found)
        return PSK_OK;
    if (!json_is_string(found))
        return wrong_value(where, key, found, "a string");
    *value = json_string_value(found);
    return PSK_OK;
}

psk_status psk_json_set(json_t *object, const char *key, json_t *value) {
    if (json_object_set_new(object, key, value) == 0) /* releases value if it fails */
        return PSK_OK;
    if (out_of_memory)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for the JSON value \"%s\"", key);
    return psk_fail(PSK_ERROR_ARGUMENT,
                    "\"%s\" cannot be written as JSON: a number is not finite, or text is not UTF-8", key);
}
