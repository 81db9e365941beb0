/* safetensors (huggingface.co/docs/safetensors): an 8-byte little-endian header size, a JSON header, then the tensors'
 * bytes.
 *
 * Reading maps the file and checks everything before any tensor is touched: header size, JSON, known dtypes, shape x
 * dtype = bytes (without overflow), offsets inside the file, in order, without overlap or gaps, the end of file. A
 * hostile file gives PSK_ERROR_FORMAT naming file, tensor and field. A Git LFS pointer is recognised and said so. Spec
 * of what we write: docs/formats.md. */
#ifndef PSK_SAFETENSORS_H
#define PSK_SAFETENSORS_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

#define PSK_MAX_DIMS 8

typedef enum { PSK_F32, PSK_F64, PSK_BF16, PSK_F16, PSK_I32, PSK_I64, PSK_U8, PSK_U16, PSK_U32 } psk_dtype;

typedef struct psk_tensor_view {
    const char *name;
    psk_dtype dtype;
    int64_t dims; /* number of dimensions, 0 for a scalar */
    int64_t shape[PSK_MAX_DIMS];
    int64_t count;    /* product of the shape */
    const void *data; /* inside the mapping; may be unaligned for its dtype: use psk_safetensors_read_floats */
} psk_tensor_view;

typedef struct psk_safetensors psk_safetensors;

psk_status psk_safetensors_open(const char *path, psk_safetensors **out);

/* The same checks on a file in memory, which is borrowed until close; `name` stands for its path in messages. */
psk_status psk_safetensors_parse(const char *name, const void *bytes, size_t size, psk_safetensors **out);

void psk_safetensors_close(psk_safetensors *file); /* accepts NULL; all views die with it */
const char *psk_safetensors_path(const psk_safetensors *file);
int64_t psk_safetensors_count(const psk_safetensors *file);
const psk_tensor_view *psk_safetensors_at(const psk_safetensors *file,
                                          int64_t index); /* in the order of their offsets */
const psk_tensor_view *psk_safetensors_find(const psk_safetensors *file, const char *name); /* NULL if absent */
const char *psk_safetensors_metadata(const psk_safetensors *file, const char *key);         /* NULL if absent */

/* Copies a tensor into floats, converting F32, F64, BF16 or F16. The tensor must be there with exactly this shape:
 * otherwise PSK_ERROR_FORMAT naming file, tensor, both shapes. */
psk_status psk_safetensors_read_floats(const psk_safetensors *file, const char *name, int64_t dims,
                                       const int64_t *shape, float *out);

/* Writing: what to write, then one atomic write. Data must stay valid until written. */
typedef struct psk_tensor_source {
    const char *name;
    psk_dtype dtype; /* of data, written as it is */
    int64_t dims;
    int64_t shape[PSK_MAX_DIMS];
    const void *data;
} psk_tensor_source;

/* metadata: a JSON object of strings, or NULL; borrowed. */
psk_status psk_safetensors_write(const char *path, const psk_tensor_source *tensors, int64_t count,
                                 const json_t *metadata);

/* The same file in memory; *bytes is released by psk_free. `name` stands for its path in messages. */
psk_status psk_safetensors_pack(const char *name, const psk_tensor_source *tensors, int64_t count,
                                const json_t *metadata, void **bytes, size_t *size);

int64_t psk_dtype_size(psk_dtype dtype);
const char *psk_dtype_name(psk_dtype dtype); /* "F32", ... */

#endif
