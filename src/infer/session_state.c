/* A session as a file: safetensors with the state and the kept rows in their order, and in the metadata what they
 * belong to (docs/formats.md). */
#include "base/files.h"
#include "infer/session.h"
#include "io/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define FORMAT_NAME    "polysketch session"
#define FORMAT_VERSION 1
#define NUMBER_TEXT    24
#define HEADER_BYTES   2048 /* more than the header can be: four tensors, five entries of metadata */

static const char *const kind_names[PSK_CACHES] = {"k", "v", "b"};
enum { MOST_TENSORS = 1 + PSK_CACHES };

/* The tensors that a session of `rows` kept rows has, without their data. */
static int64_t describe_tensors(const psk_decoder *decoder, int64_t rows, psk_tensor_source tensors[MOST_TENSORS]) {
    const psk_sizes *s = &decoder->s;
    const int64_t m = psk_attention_state_rows(&decoder->model->config.attention);
    int64_t count = 0;
    if (m > 0)
        tensors[count++] =
            (psk_tensor_source){.name = "state", .dtype = PSK_F32, .dims = 4, .shape = {s->L, s->Hkv, m, s->h + 1}};
    for (int kind = 0; kind < PSK_CACHES; kind++)
        if (decoder->layout.width[kind] > 0)
            tensors[count++] = (psk_tensor_source){.name = kind_names[kind],
                                                   .dtype = PSK_F32,
                                                   .dims = 4,
                                                   .shape = {s->L, s->Hkv, rows, decoder->layout.width[kind]}};
    return count;
}

static int64_t floats_of(const psk_tensor_source *tensor) {
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

/* XXH3-64 of what the metadata say, then of all tensors in their order. */
typedef struct checked_parts {
    const char *length, *model;
    const psk_tensor_source *tensors;
    int64_t count;
} checked_parts;

static psk_status checksum(const checked_parts *parts, char text[NUMBER_TEXT]) {
    char line[2 * NUMBER_TEXT + PSK_MODEL_HASH_CAPACITY];
    snprintf(line, sizeof line, "%.20s %.32s", parts->length, parts->model);
    XXH64_hash_t hash = XXH3_64bits(line, strlen(line));
    for (int64_t i = 0; i < parts->count; i++)
        hash =
            XXH3_64bits_withSeed(parts->tensors[i].data, (size_t)floats_of(&parts->tensors[i]) * sizeof(float), hash);
    snprintf(text, NUMBER_TEXT, "%016" PRIx64, (uint64_t)hash);
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- pack
 */

/* The kept rows of one kind, L x Hkv x rows x width. */
static psk_status gather_rows(const psk_session *session, int kind, float **out) {
    const psk_decoder *decoder = session->decoder;
    const int64_t head = session->rows * decoder->layout.width[kind];
    PSK_TRY(psk_alloc((size_t)(decoder->layout.groups * head) * sizeof(float), "the rows of a session", (void **)out));
    for (int64_t layer = 0; layer < decoder->s.L; layer++)
        PSK_TRY(psk_session_rows(session, kind, layer, session->rows, *out + layer * decoder->s.Hkv * head, head));
    return PSK_OK;
}

static psk_status describe_session(const psk_session *session, const psk_tensor_source *tensors, int64_t count,
                                   json_t *metadata) {
    char length[NUMBER_TEXT], version[NUMBER_TEXT], sum[NUMBER_TEXT], model[PSK_MODEL_HASH_CAPACITY];
    snprintf(length, sizeof length, "%" PRId64, session->length);
    snprintf(version, sizeof version, "%d", FORMAT_VERSION);
    PSK_TRY(psk_model_hash(session->decoder->model, model));
    PSK_TRY(checksum(&(checked_parts){length, model, tensors, count}, sum));
    PSK_TRY(psk_json_set(metadata, "format", json_string(FORMAT_NAME)));
    PSK_TRY(psk_json_set(metadata, "version", json_string(version)));
    PSK_TRY(psk_json_set(metadata, "length", json_string(length)));
    PSK_TRY(psk_json_set(metadata, "model", json_string(model)));
    return psk_json_set(metadata, "checksum", json_string(sum));
}

psk_status psk_session_pack(const psk_session *session, void **bytes, size_t *size) {
    const psk_decoder *decoder = session->decoder;
    psk_tensor_source tensors[MOST_TENSORS];
    float *rows[PSK_CACHES] = {NULL};
    psk_status status = PSK_OK;
    *bytes = NULL;
    *size = 0;
    PSK_TRY(psk_session_check_whole(session));
    psk_json_init();
    json_t *metadata = json_object();
    const int64_t count = describe_tensors(decoder, session->rows, tensors);
    int64_t next = 0;
    if (session->state != NULL)
        tensors[next++].data = session->state;
    for (int kind = 0; kind < PSK_CACHES && status == PSK_OK; kind++)
        if (decoder->layout.width[kind] > 0) {
            status = gather_rows(session, kind, &rows[kind]);
            tensors[next++].data = rows[kind];
        }
    if (status == PSK_OK)
        status = describe_session(session, tensors, count, metadata);
    if (status == PSK_OK)
        status = psk_safetensors_pack("the state of a session", tensors, count, metadata, bytes, size);
    for (int kind = 0; kind < PSK_CACHES; kind++)
        psk_free(rows[kind]);
    json_decref(metadata);
    return status;
}

int64_t psk_session_file_bytes_at(const psk_model *model, int64_t tokens) {
    const psk_session_layout layout = psk_session_layout_of(&model->config);
    const int64_t rows = layout.ring > 0 && tokens >= layout.ring ? layout.ring - 1 : tokens;
    const int64_t bytes = psk_layout_bytes(&layout, rows);
    return bytes < 0 || bytes > INT64_MAX - HEADER_BYTES ? -1 : bytes + HEADER_BYTES;
}

psk_status psk_session_save(const psk_session *session, const char *path) {
    void *bytes;
    size_t size;
    PSK_TRY(psk_session_pack(session, &bytes, &size));
    const psk_status status = psk_write_file(path, bytes, size);
    psk_free(bytes);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ unpack
 */

static psk_status metadata_text(const psk_safetensors *file, const char *key, const char **text) {
    *text = psk_safetensors_metadata(file, key);
    if (*text == NULL)
        return psk_fail(PSK_ERROR_FORMAT, "%s: no \"%s\" in the metadata: not the state of a session",
                        psk_safetensors_path(file), key);
    return PSK_OK;
}

static psk_status metadata_number(const psk_safetensors *file, const char *key, int64_t low, int64_t high,
                                  int64_t *value) {
    const char *text;
    char *end;
    PSK_TRY(metadata_text(file, key, &text));
    const long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || number < low || number > high)
        return psk_fail(PSK_ERROR_FORMAT, "%s: \"%s\" is \"%.24s\", must be %lld ... %lld", psk_safetensors_path(file),
                        key, text, (long long)low, (long long)high);
    *value = number;
    return PSK_OK;
}

static psk_status check_origin(const psk_safetensors *file, psk_model *model) {
    const char *format, *origin, *path = psk_safetensors_path(file);
    char hash[PSK_MODEL_HASH_CAPACITY];
    int64_t version;
    PSK_TRY(metadata_text(file, "format", &format));
    if (strcmp(format, FORMAT_NAME) != 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s: its format is \"%.32s\", expected \"" FORMAT_NAME "\"", path, format);
    PSK_TRY(metadata_number(file, "version", 1, INT32_MAX, &version));
    if (version > FORMAT_VERSION)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: has version %lld of the format, this program reads up to %d; use a later program", path,
                        (long long)version, FORMAT_VERSION);
    PSK_TRY(metadata_text(file, "model", &origin));
    PSK_TRY(psk_model_hash(model, hash));
    if (strcmp(origin, hash) != 0)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: is the state of another model (%.32s), not of this one (%s): a state continues only with "
                        "the very weights that made it",
                        path, origin, hash);
    return PSK_OK;
}

/* How many rows a session of so many tokens may keep: the chunks in which they came decide within these bounds. */
static psk_status check_rows(const psk_safetensors *file, const psk_session_layout *layout, int64_t length,
                             int64_t *rows) {
    const psk_tensor_view *v = psk_safetensors_find(file, kind_names[PSK_CACHE_V]);
    *rows = v != NULL && v->dims == 4 ? v->shape[2] : -1;
    const int64_t most = layout->ring > 0 && length >= layout->ring ? layout->ring - 1 : length;
    const int64_t least = layout->ring == 0 ? length : 0;
    if (*rows < least || *rows > most)
        return psk_fail(PSK_ERROR_FORMAT, "%s: keeps %lld rows, must be %lld ... %lld after %lld tokens",
                        psk_safetensors_path(file), (long long)*rows, (long long)least, (long long)most,
                        (long long)length);
    return PSK_OK;
}

static psk_status check_checksum(const psk_safetensors *file, const psk_tensor_source *described, int64_t count) {
    psk_tensor_source tensors[MOST_TENSORS];
    char sum[NUMBER_TEXT];
    const char *expected, *path = psk_safetensors_path(file);
    checked_parts parts = {.tensors = tensors, .count = count};
    if (psk_safetensors_count(file) != count)
        return psk_fail(PSK_ERROR_FORMAT, "%s: has %lld tensors, the state of this model has %lld", path,
                        (long long)psk_safetensors_count(file), (long long)count);
    for (int64_t i = 0; i < count; i++) {
        const psk_tensor_view *view = psk_safetensors_find(file, described[i].name);
        tensors[i] = described[i];
        if (view == NULL || view->dtype != PSK_F32 || view->dims != 4 ||
            memcmp(view->shape, described[i].shape, 4 * sizeof(int64_t)) != 0)
            return psk_fail(PSK_ERROR_FORMAT, "%s: tensor \"%s\" is absent or not of F32 [%lld, %lld, %lld, %lld]",
                            path, described[i].name, (long long)described[i].shape[0], (long long)described[i].shape[1],
                            (long long)described[i].shape[2], (long long)described[i].shape[3]);
        tensors[i].data = view->data;
    }
    PSK_TRY(metadata_text(file, "length", &parts.length));
    PSK_TRY(metadata_text(file, "model", &parts.model));
    PSK_TRY(metadata_text(file, "checksum", &expected));
    PSK_TRY(checksum(&parts, sum));
    if (strcmp(sum, expected) != 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s: its checksum is %s, but %.16s is written in it: the file is damaged",
                        path, sum, expected);
    return PSK_OK;
}

/* The rows of one kind, L x Hkv x rows x width, into the first slots. */
static void scatter_rows(const psk_session *session, int kind, const psk_tensor_view *view) {
    const psk_session_layout *layout = &session->decoder->layout;
    const size_t head = (size_t)(session->rows * layout->width[kind]) * sizeof(float);
    for (int64_t group = 0; group < layout->groups && head > 0; group++)
        memcpy(session->cache[kind] + group * session->capacity * layout->width[kind],
               (const char *)view->data + (size_t)group * head, head);
}

/* A state that overflowed, or that was made by hand: the checksum may be right, and no token could follow. */
static psk_status check_finite(const psk_safetensors *file, const psk_session *session, const char *name,
                               const float *x, int64_t n) {
    double sum = 0;
    if (n > 0)
        PSK_RUN(session->decoder->model->device, sum_squares, .n = n, .x = x, .out = &sum);
    if (!isfinite(sum)) /* squares of float32 are finite in float64 */
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: tensor \"%s\" has numbers that are not finite: no text goes on from there",
                        psk_safetensors_path(file), name);
    return PSK_OK;
}

static psk_status check_numbers(const psk_safetensors *file, const psk_session *session) {
    const psk_session_layout *layout = &session->decoder->layout;
    if (session->state != NULL)
        PSK_TRY(check_finite(file, session, "state", session->state, layout->state_floats));
    for (int kind = 0; kind < PSK_CACHES; kind++)
        for (int64_t group = 0; group < layout->groups && layout->width[kind] > 0; group++)
            PSK_TRY(check_finite(file, session, kind_names[kind],
                                 session->cache[kind] + group * session->capacity * layout->width[kind],
                                 session->rows * layout->width[kind]));
    return PSK_OK;
}

static psk_status read_session(const psk_safetensors *file, psk_session *session) {
    const psk_decoder *decoder = session->decoder;
    psk_tensor_source tensors[MOST_TENSORS];
    PSK_TRY(metadata_number(file, "length", 0, INT32_MAX, &session->length));
    PSK_TRY(check_rows(file, &decoder->layout, session->length, &session->rows));
    const int64_t count = describe_tensors(decoder, session->rows, tensors), rows = session->rows;
    PSK_TRY(check_checksum(file, tensors, count));
    session->rows = 0; /* nothing to take along into a larger cache */
    PSK_TRY(psk_session_reserve(session, session->length));
    session->rows = rows;
    if (session->state != NULL)
        memcpy(session->state, psk_safetensors_find(file, "state")->data,
               (size_t)decoder->layout.state_floats * sizeof(float));
    for (int kind = 0; kind < PSK_CACHES; kind++)
        if (decoder->layout.width[kind] > 0)
            scatter_rows(session, kind, psk_safetensors_find(file, kind_names[kind]));
    return check_numbers(file, session);
}

/* Closes the file. */
static psk_status restore(psk_model *model, psk_safetensors *file, psk_session **out) {
    psk_session *session = NULL;
    psk_status status = psk_session_create(model, &session);
    if (status == PSK_OK)
        status = check_origin(file, model);
    if (status == PSK_OK)
        status = read_session(file, session);
    psk_safetensors_close(file);
    if (status == PSK_OK)
        *out = session;
    else
        psk_session_free(session);
    return status;
}

psk_status psk_session_load(psk_model *model, const char *path, psk_session **out) {
    psk_safetensors *file;
    *out = NULL;
    PSK_TRY(psk_safetensors_open(path, &file));
    return restore(model, file, out);
}

psk_status psk_session_unpack(psk_model *model, const void *bytes, size_t size, psk_session **out) {
    psk_safetensors *file;
    *out = NULL;
    PSK_TRY(psk_safetensors_parse("the state of a session", bytes, size, &file));
    return restore(model, file, out);
}
