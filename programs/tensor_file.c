#include "tensor_file.h"

#include "terminal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES 100000000 /* of a header: the format's own limit */

/* The object in the next `size` bytes. */
static json_t *read_object(FILE *file, size_t size) {
    json_t *object = NULL;
    char *const text = malloc(size);
    if (text && fread(text, 1, size, file) == size)
        object = json_loadb(text, size, 0, NULL);
    free(text);
    if (json_is_object(object))
        return object;
    json_decref(object);
    return NULL;
}

/* An object of tensors, and of "__metadata__"; NULL: there is none. */
static json_t *read_header(const char *path) {
    unsigned char bytes[8];
    json_t *header = NULL;
    uint64_t size = 0;
    FILE *const file = fopen(path, "rb");
    if (!file)
        return NULL;
    if (fread(bytes, 1, sizeof bytes, file) == sizeof bytes)
        for (size_t i = 0; i < sizeof bytes; i++)
            size |= (uint64_t)bytes[i] << 8 * i;
    if (size > 0 && size <= MOST_BYTES)
        header = read_object(file, (size_t)size);
    fclose(file);
    return header;
}

/* How many numbers a tensor has, by its shape. */
static double tensor_size(const json_t *tensor) {
    const json_t *const shape = json_object_get(tensor, "shape");
    double size = 1;
    for (size_t i = 0; i < json_array_size(shape); i++)
        size *= (double)json_integer_value(json_array_get(shape, i));
    return size;
}

static bool is_made_of(const char *text, const char *characters) {
    return text && *text && text[strspn(text, characters)] == '\0';
}

/* A state (docs/formats.md) is known by its metadata; what a terminal would take for more than text is in none. */
static void print_header(const char *path, int64_t file_bytes, json_t *header) {
    const json_t *const metadata = json_object_get(header, "__metadata__");
    const char *const format = json_string_value(json_object_get(metadata, "format"));
    const char *const length = json_string_value(json_object_get(metadata, "length"));
    const char *const model = json_string_value(json_object_get(metadata, "model"));
    char numbers[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY];
    const char *key;
    json_t *value;
    size_t tensors = 0;
    double sum = 0;
    json_object_foreach(header, key, value) {
        if (value == metadata)
            continue;
        tensors++;
        sum += tensor_size(value);
    }
    printf("%s: ", path);
    if (format && strcmp(format, "polysketch session") == 0 && is_made_of(length, "0123456789") &&
        is_made_of(model, "0123456789abcdef"))
        printf("the state of a sequence after %s tokens, of the model %s", length, model);
    else
        printf("safetensors");
    printf(", %zu tensor%s, %s numbers, %s\n", tensors, tensors == 1 ? "" : "s", format_count(numbers, sum),
           format_bytes(bytes, file_bytes));
}

bool tensor_file_print(const char *path, int64_t bytes) {
    json_t *const header = read_header(path);
    if (!header)
        return false;
    print_header(path, bytes, header);
    json_decref(header);
    return true;
}
