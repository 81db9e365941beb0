#include "io/safetensors.h"

#include "base/bf16.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data are little-endian and copied as they are");

#define PREFIX_BYTES 8                     /* the size of the header comes first */
#define HEADER_LIMIT ((uint64_t)100000000) /* as in the format's reference implementation */
#define METADATA_KEY "__metadata__"

/* Name and size, in the order of psk_dtype. */
#define DTYPES(X)              X(F32, 4) X(F64, 8) X(BF16, 2) X(F16, 2) X(I32, 4) X(I64, 8) X(U8, 1) X(U16, 2) X(U32, 4)
#define DTYPE_LINE(name, size) {#name, size},
#define DTYPE_WORD(name, size) " " #name
static const struct {
    const char *name;
    int64_t size;
} dtypes[] = {DTYPES(DTYPE_LINE)};
#define DTYPE_COUNT ((int)(sizeof dtypes / sizeof dtypes[0]))
_Static_assert(DTYPE_COUNT == PSK_U32 + 1, "one line for each psk_dtype");

/* A tensor as the header describes it; view.data is set once begin and end are known to be inside the file. */
typedef struct {
    psk_tensor_view view;
    uint64_t begin, end;
} tensor;

struct psk_safetensors {
    char *path;
    psk_mapping mapping;
    bool borrowed;  /* the mapping is memory of the caller */
    json_t *header; /* owns all names */
    uint64_t data_offset;
    tensor *tensors; /* sorted by begin, end, name */
    tensor **by_name;
    int64_t count;
};

int64_t psk_dtype_size(psk_dtype dtype) {
    return dtypes[dtype].size;
}

const char *psk_dtype_name(psk_dtype dtype) {
    return dtypes[dtype].name;
}

/* A psk_status that names file, tensor and what is wrong with it. */
#define TENSOR_FAIL(file, name, ...)                                                                                   \
    psk_fail_within(psk_fail(PSK_ERROR_FORMAT, __VA_ARGS__), "%s: tensor \"%s\"", (file)->path, (name))

/* Sets data_offset: the header lies between the prefix and that. */
static psk_status check_prefix(psk_safetensors *file) {
    const unsigned char *bytes = file->mapping.data;
    const size_t size = file->mapping.size;
    PSK_TRY(psk_refuse_pointer(file->path, bytes, size));
    if (size < PREFIX_BYTES)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: %zu bytes are too few for a safetensors file, which begins with 8 bytes of "
                        "header size",
                        file->path, size);
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    if (header > HEADER_LIMIT)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: header size %" PRIu64 " is above the limit of %" PRIu64
                        " bytes: not a safetensors file, or damaged",
                        file->path, header, HEADER_LIMIT);
    if (header > size - PREFIX_BYTES)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: header size %" PRIu64 " is more than the %zu bytes that follow: the file is "
                        "cut off or damaged",
                        file->path, header, size - PREFIX_BYTES);
    if (header == 0 || bytes[PREFIX_BYTES] != '{')
        return psk_fail(PSK_ERROR_FORMAT, "%s: the header does not begin with {: not a safetensors file, or damaged",
                        file->path);
    file->data_offset = PREFIX_BYTES + header;
    return PSK_OK;
}

static psk_status parse_dtype(const psk_safetensors *file, const char *name, const json_t *entry, psk_dtype *dtype) {
    const json_t *value = json_object_get(entry, "dtype");
    if (!json_is_string(value))
        return TENSOR_FAIL(file, name, "dtype is missing or not a string");
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(json_string_value(value), dtypes[i].name) == 0) {
            *dtype = (psk_dtype)i;
            return PSK_OK;
        }
    return TENSOR_FAIL(file, name, "dtype \"%s\" is not one of those read here:" DTYPES(DTYPE_WORD),
                       json_string_value(value));
}

static psk_status parse_shape(const psk_safetensors *file, const char *name, const json_t *entry,
                              psk_tensor_view *view) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return TENSOR_FAIL(file, name, "shape is missing or not an array");
    if (json_array_size(shape) > PSK_MAX_DIMS)
        return TENSOR_FAIL(file, name, "shape has %zu dimensions, the limit is %d", json_array_size(shape),
                           PSK_MAX_DIMS);
    view->dims = (int64_t)json_array_size(shape);
    view->count = 1;
    for (int64_t i = 0; i < view->dims; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return TENSOR_FAIL(file, name, "shape[%" PRId64 "] is not an integer >= 0", i);
        view->shape[i] = json_integer_value(size);
        if (psk_size_mul(view->count, view->shape[i], &view->count) != PSK_OK)
            return TENSOR_FAIL(file, name, "shape has more elements than fit 64 bits");
    }
    return PSK_OK;
}

static psk_status parse_offsets(const psk_safetensors *file, const char *name, const json_t *entry, tensor *out) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
        json_integer_value(begin) < 0 || json_integer_value(end) < 0)
        return TENSOR_FAIL(file, name, "data_offsets is missing or not an array of two integers >= 0");
    out->begin = (uint64_t)json_integer_value(begin);
    out->end = (uint64_t)json_integer_value(end);
    if (out->begin > out->end)
        return TENSOR_FAIL(file, name, "data_offsets begin at %" PRIu64 " and end before that, at %" PRIu64, out->begin,
                           out->end);
    const uint64_t available = file->mapping.size - file->data_offset;
    if (out->end > available)
        return TENSOR_FAIL(file, name,
                           "data_offsets end at %" PRIu64 ", but only %" PRIu64
                           " bytes of data are there: the file is cut off or damaged",
                           out->end, available);
    int64_t bytes;
    if (psk_size_mul(out->view.count, psk_dtype_size(out->view.dtype), &bytes) != PSK_OK)
        return TENSOR_FAIL(file, name, "shape has more bytes than fit 64 bits");
    if ((uint64_t)bytes != out->end - out->begin)
        return TENSOR_FAIL(file, name, "data_offsets span %" PRIu64 " bytes, shape and dtype %s take %" PRId64,
                           out->end - out->begin, psk_dtype_name(out->view.dtype), bytes);
    out->view.data = file->mapping.data + file->data_offset + out->begin;
    return PSK_OK;
}

static psk_status parse_tensor(const psk_safetensors *file, const char *name, const json_t *entry, tensor *out) {
    *out = (tensor){.view.name = name};
    if (!json_is_object(entry))
        return TENSOR_FAIL(file, name, "is not described by a JSON object");
    PSK_TRY(parse_dtype(file, name, entry, &out->view.dtype));
    PSK_TRY(parse_shape(file, name, entry, &out->view));
    return parse_offsets(file, name, entry, out);
}

/* The first value that is no string makes it an error; `where` is a file or what is about to be written. */
static psk_status check_metadata(psk_status status, const char *where, const json_t *metadata) {
    if (!json_is_object(metadata))
        return psk_fail(status, "%s: " METADATA_KEY " is not a JSON object", where);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value))
            return psk_fail(status, "%s: " METADATA_KEY ": \"%s\" is not a string", where, key);
    }
    return PSK_OK;
}

static psk_status parse_tensors(psk_safetensors *file) {
    const size_t capacity = json_object_size(file->header);
    void *tensors, *by_name;
    PSK_TRY(psk_alloc(capacity * sizeof(tensor), "the tensors of a file", &tensors));
    file->tensors = tensors;
    PSK_TRY(psk_alloc(capacity * sizeof(tensor *), "the tensors of a file", &by_name));
    file->by_name = by_name;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, METADATA_KEY) == 0)
            PSK_TRY(check_metadata(PSK_ERROR_FORMAT, file->path, entry));
        else
            PSK_TRY(parse_tensor(file, name, entry, &file->tensors[file->count++]));
    }
    return PSK_OK;
}

static int compare_places(const void *a, const void *b) {
    const tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->view.name, y->view.name);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(tensor *const *)a)->view.name, (*(tensor *const *)b)->view.name);
}

/* The tensors follow each other without overlap or gap and end where the file ends. */
static psk_status check_places(psk_safetensors *file) {
    qsort(file->tensors, (size_t)file->count, sizeof(tensor), compare_places);
    uint64_t end = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const tensor *t = &file->tensors[i];
        if (t->begin < end)
            return TENSOR_FAIL(file, t->view.name,
                               "data_offsets begin at %" PRIu64 ", inside tensor \"%s\", which ends at %" PRIu64,
                               t->begin, file->tensors[i - 1].view.name, end);
        if (t->begin > end)
            return TENSOR_FAIL(file, t->view.name,
                               "data_offsets begin at %" PRIu64 ", but bytes from %" PRIu64 " on belong to no tensor",
                               t->begin, end);
        end = t->end;
        file->by_name[i] = &file->tensors[i];
    }
    const uint64_t available = file->mapping.size - file->data_offset;
    if (end != available)
        return psk_fail(PSK_ERROR_FORMAT, "%s: %" PRIu64 " bytes behind the last tensor belong to none", file->path,
                        available - end);
    qsort(file->by_name, (size_t)file->count, sizeof(tensor *), compare_names);
    return PSK_OK;
}

static psk_status read_file(psk_safetensors *file, const char *path) {
    PSK_TRY(psk_strdup(path, &file->path));
    if (!file->borrowed)
        PSK_TRY(psk_map_file(path, &file->mapping));
    PSK_TRY(check_prefix(file));
    const psk_status status = psk_json_parse((const char *)file->mapping.data + PREFIX_BYTES,
                                             file->data_offset - PREFIX_BYTES, path, &file->header);
    if (status != PSK_OK)
        return psk_fail_within(status, "safetensors header");
    PSK_TRY(parse_tensors(file));
    return check_places(file);
}

/* borrowed: the bytes of a file in memory, or NULL for the file at `path`. */
static psk_status open_file(const char *path, const psk_mapping *borrowed, psk_safetensors **out) {
    *out = NULL;
    psk_safetensors *file;
    PSK_TRY(psk_alloc_zero(sizeof *file, "a safetensors file", (void **)&file));
    if (borrowed != NULL) {
        file->mapping = *borrowed;
        file->borrowed = true;
    }
    const psk_status status = read_file(file, path);
    if (status == PSK_OK)
        *out = file;
    else
        psk_safetensors_close(file);
    return status;
}

psk_status psk_safetensors_open(const char *path, psk_safetensors **out) {
    return open_file(path, NULL, out);
}

psk_status psk_safetensors_parse(const char *name, const void *bytes, size_t size, psk_safetensors **out) {
    return open_file(name, &(psk_mapping){bytes, size}, out);
}

void psk_safetensors_close(psk_safetensors *file) {
    if (!file)
        return;
    psk_free(file->by_name);
    psk_free(file->tensors);
    json_decref(file->header);
    if (!file->borrowed)
        psk_unmap_file(&file->mapping);
    psk_free(file->path);
    psk_free(file);
}

const char *psk_safetensors_path(const psk_safetensors *file) {
    return file->path;
}

int64_t psk_safetensors_count(const psk_safetensors *file) {
    return file->count;
}

const psk_tensor_view *psk_safetensors_at(const psk_safetensors *file, int64_t index) {
    PSK_ASSERT(index >= 0 && index < file->count);
    return &file->tensors[index].view;
}

const psk_tensor_view *psk_safetensors_find(const psk_safetensors *file, const char *name) {
    const tensor wanted = {.view.name = name};
    const tensor *key = &wanted;
    tensor *const *found = bsearch(&key, file->by_name, (size_t)file->count, sizeof(tensor *), compare_names);
    return found ? &(*found)->view : NULL;
}

const char *psk_safetensors_metadata(const psk_safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, METADATA_KEY), key));
}

/* IEEE half precision; exact. */
static float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0) { /* 0 and subnormal: fraction x 2^-24 */
        const float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* count numbers of a type that may be unaligned in the file. */
#define CONVERT(type, expression)                                                                                      \
    for (int64_t i = 0; i < view->count; i++) {                                                                        \
        type x;                                                                                                        \
        memcpy(&x, (const char *)view->data + i * (int64_t)sizeof x, sizeof x);                                        \
        out[i] = (expression);                                                                                         \
    }                                                                                                                  \
    return true

static bool convert(const psk_tensor_view *view, float *out) {
    switch (view->dtype) {
    case PSK_F32:
        CONVERT(float, x);
    case PSK_F64:
        CONVERT(double, (float)x);
    case PSK_BF16:
        CONVERT(psk_bf16, psk_bf16_to_float(x));
    case PSK_F16:
        CONVERT(uint16_t, half_to_float(x));
    default:
        return false;
    }
}

#define SHAPE_TEXT (PSK_MAX_DIMS * 22 + 3)

/* "[2, 3]" */
static const char *shape_text(int64_t dims, const int64_t *shape, char text[SHAPE_TEXT]) {
    int length = snprintf(text, SHAPE_TEXT, "[");
    for (int64_t i = 0; i < dims && i < PSK_MAX_DIMS; i++)
        length += snprintf(text + length, (size_t)(SHAPE_TEXT - length), "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + length, (size_t)(SHAPE_TEXT - length), "]");
    return text;
}

psk_status psk_safetensors_read_floats(const psk_safetensors *file, const char *name, int64_t dims,
                                       const int64_t *shape, float *out) {
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    shape_text(dims, shape, expected);
    const psk_tensor_view *view = psk_safetensors_find(file, name);
    if (!view)
        return TENSOR_FAIL(file, name, "is not there; expected with shape %s", expected);
    bool same = view->dims == dims;
    for (int64_t i = 0; same && i < dims; i++)
        same = view->shape[i] == shape[i];
    if (!same)
        return TENSOR_FAIL(file, name, "has shape %s, expected %s", shape_text(view->dims, view->shape, found),
                           expected);
    if (!convert(view, out))
        return TENSOR_FAIL(file, name, "has dtype %s, expected one of F32 F64 BF16 F16", psk_dtype_name(view->dtype));
    return PSK_OK;
}

/* One integer array of the header; NULL if there is no memory. */
static json_t *integer_array(const int64_t *values, int64_t count) {
    json_t *array = json_array();
    for (int64_t i = 0; array && i < count; i++)
        if (json_array_append_new(array, json_integer(values[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static psk_status source_bytes(const psk_tensor_source *source, int64_t *bytes) {
    if (source->dims < 0 || source->dims > PSK_MAX_DIMS)
        return psk_fail(PSK_ERROR_ARGUMENT, "%" PRId64 " dimensions, the limit is %d", source->dims, PSK_MAX_DIMS);
    *bytes = psk_dtype_size(source->dtype);
    for (int64_t i = 0; i < source->dims; i++)
        PSK_TRY(psk_size_mul(*bytes, source->shape[i], bytes));
    return PSK_OK;
}

/* header[name] = {dtype, shape, data_offsets}; *end: end of the tensor before, then of this one. */
static psk_status describe(json_t *header, const psk_tensor_source *source, int64_t *end) {
    int64_t bytes, offsets[2] = {*end, 0};
    PSK_TRY(source_bytes(source, &bytes));
    if (__builtin_add_overflow(*end, bytes, &offsets[1]))
        return psk_fail(PSK_ERROR_ARGUMENT, "the file would be larger than 2^63 bytes");
    if (strcmp(source->name, METADATA_KEY) == 0 || json_object_get(header, source->name))
        return psk_fail(PSK_ERROR_ARGUMENT, "the name is given twice, or reserved");
    *end = offsets[1];
    json_t *entry = json_object();
    psk_status status;
    PSK_TRY_GOTO(status, psk_json_set(entry, "dtype", json_string(psk_dtype_name(source->dtype))), fail);
    PSK_TRY_GOTO(status, psk_json_set(entry, "shape", integer_array(source->shape, source->dims)), fail);
    PSK_TRY_GOTO(status, psk_json_set(entry, "data_offsets", integer_array(offsets, 2)), fail);
    return psk_json_set(header, source->name, entry);
fail:
    json_decref(entry);
    return status;
}

static psk_status build_header(const psk_tensor_source *tensors, int64_t count, const json_t *metadata, json_t *header,
                               int64_t *end) {
    if (metadata)
        PSK_TRY(psk_json_set(header, METADATA_KEY, json_incref((json_t *)(uintptr_t)metadata)));
    for (int64_t i = 0; i < count; i++) {
        const psk_status status = describe(header, &tensors[i], end);
        if (status != PSK_OK)
            return psk_fail_within(status, "tensor \"%s\"", tensors[i].name);
    }
    return PSK_OK;
}

/* Where a file is written to: a file, or memory for all of it. */
typedef struct psk_sink {
    psk_atomic_file *file;
    unsigned char *bytes;
    size_t used;
} psk_sink;

static psk_status put(psk_sink *sink, const void *data, size_t bytes) {
    if (sink->file != NULL)
        return psk_atomic_write(sink->file, data, bytes);
    if (bytes > 0)
        memcpy(sink->bytes + sink->used, data, bytes);
    sink->used += bytes;
    return PSK_OK;
}

/* Of a header's text with as many spaces as make the data begin at a multiple of 8. */
static psk_status padded_size(const char *text, uint64_t *padded) {
    *padded = (strlen(text) + 7) / 8 * 8;
    if (*padded > HEADER_LIMIT)
        return psk_fail(PSK_ERROR_ARGUMENT, "a header of %" PRIu64 " bytes is above the limit of %" PRIu64, *padded,
                        HEADER_LIMIT);
    return PSK_OK;
}

static psk_status put_all(psk_sink *sink, const char *header, const psk_tensor_source *tensors, int64_t count) {
    uint64_t padded;
    PSK_TRY(padded_size(header, &padded));
    PSK_TRY(put(sink, &padded, sizeof padded));
    PSK_TRY(put(sink, header, strlen(header)));
    PSK_TRY(put(sink, "       ", padded - strlen(header)));
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes;
        PSK_TRY(source_bytes(&tensors[i], &bytes));
        PSK_TRY(put(sink, tensors[i].data, (size_t)bytes));
    }
    return PSK_OK;
}

static psk_status write_all(const char *path, const char *header, const psk_tensor_source *tensors, int64_t count) {
    psk_sink sink = {0};
    PSK_TRY(psk_atomic_open(path, &sink.file));
    const psk_status status = put_all(&sink, header, tensors, count);
    if (status == PSK_OK)
        return psk_atomic_commit(sink.file);
    psk_atomic_abandon(sink.file);
    return status;
}

/* The header's text, released by psk_free; *end: bytes of all tensors. */
static psk_status header_text(const char *path, const psk_tensor_source *tensors, int64_t count, const json_t *metadata,
                              char **text, int64_t *end) {
    psk_json_init();
    *text = NULL;
    *end = 0;
    if (metadata)
        PSK_TRY(check_metadata(PSK_ERROR_ARGUMENT, path, metadata));
    json_t *header = json_object();
    psk_status status = build_header(tensors, count, metadata, header, end);
    if (status != PSK_OK)
        status = psk_fail_within(status, "%s", path);
    else
        status = psk_json_dump(header, path, JSON_COMPACT, text);
    json_decref(header);
    return status;
}

psk_status psk_safetensors_write(const char *path, const psk_tensor_source *tensors, int64_t count,
                                 const json_t *metadata) {
    char *text;
    int64_t end;
    PSK_TRY(header_text(path, tensors, count, metadata, &text, &end));
    const psk_status status = write_all(path, text, tensors, count);
    psk_free(text);
    return status;
}

static psk_status pack_all(const char *header, const psk_tensor_source *tensors, int64_t count, int64_t data,
                           void **bytes, size_t *size) {
    uint64_t padded;
    psk_sink sink = {0};
    PSK_TRY(padded_size(header, &padded));
    *size = PREFIX_BYTES + padded + (size_t)data;
    PSK_TRY(psk_alloc(*size, "a safetensors file in memory", (void **)&sink.bytes));
    *bytes = sink.bytes;
    return put_all(&sink, header, tensors, count);
}

psk_status psk_safetensors_pack(const char *name, const psk_tensor_source *tensors, int64_t count,
                                const json_t *metadata, void **bytes, size_t *size) {
    char *text;
    int64_t data;
    *bytes = NULL;
    *size = 0;
    PSK_TRY(header_text(name, tensors, count, metadata, &text, &data));
    const psk_status status = pack_all(text, tensors, count, data, bytes, size);
    psk_free(text);
    return status;
}
