/* Two parts of oneDNN's API: dnnl_sgemm, the same in versions 2 and 3, and the matmul primitive, whose descriptors
 * changed from values (2) to handles (3): the functions matrix_* and describe_product below know how. */
#include "cpu/cpu_dnnl.h"

#include "base/memory.h"

#if PSK_WITH_ONEDNN

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

void psk_dnnl_stay_serial(void) {
    omp_set_num_threads(1); /* of the regions inside this one */
}

/* Holds back the signals of this thread while oneDNN computes; *before: what to restore. Its kernels (2.6.3; upstream
 * issue 4845) point the stack pointer into a heap buffer, and the kernel of the system would write the frame of a
 * signal there. Faults of the thread itself are not held back: they must end the program where they happen. */
static void hold_signals(sigset_t *before) {
    sigset_t held;
    sigfillset(&held);
    sigdelset(&held, SIGSEGV);
    sigdelset(&held, SIGBUS);
    sigdelset(&held, SIGFPE);
    sigdelset(&held, SIGILL);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

static psk_status status_of(dnnl_status_t status) {
    if (status == dnnl_success)
        return PSK_OK;
    return status == dnnl_out_of_memory ? PSK_ERROR_MEMORY : PSK_ERROR_INTERNAL;
}

psk_status psk_dnnl_sgemm(psk_orientation a_orientation, psk_orientation b_orientation, int64_t m, int64_t n, int64_t k,
                          float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                          int64_t ldc) {
    const char a_letter = a_orientation == PSK_TRANSPOSED ? 'T' : 'N',
               b_letter = b_orientation == PSK_TRANSPOSED ? 'T' : 'N';
    sigset_t before;
    hold_signals(&before);
    const dnnl_status_t status = dnnl_sgemm(a_letter, b_letter, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status_of(status);
}

/* ---------------------------------------------------------------------------------------------------------- bfloat16
 */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t matrix; /* a handle */
#define MATRIX(m) (m)

static dnnl_status_t matrix_create(matrix *m, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_create_with_tag(m, 2, dims, type, tag);
}

static void matrix_free(matrix m) {
    if (m != NULL)
        dnnl_memory_desc_destroy(m);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t matrix_of_scratch(dnnl_primitive_desc_t product, matrix *out) {
    return dnnl_memory_desc_clone(out, dnnl_primitive_desc_query_md(product, dnnl_query_scratchpad_md, 0));
}

static dnnl_status_t describe_product(dnnl_engine_t engine, const matrix *a, const matrix *b, const matrix *c,
                                      dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out) {
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attributes);
}
#else
typedef dnnl_memory_desc_t matrix; /* a value */
#define MATRIX(m) (&(m))

static dnnl_status_t matrix_create(matrix *m, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag) {
    return dnnl_memory_desc_init_by_tag(m, 2, dims, type, tag);
}

static void matrix_free(matrix m) {
    (void)m;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t matrix_of_scratch(dnnl_primitive_desc_t product, matrix *out) {
    *out = *dnnl_primitive_desc_query_md(product, dnnl_query_scratchpad_md, 0);
    return dnnl_success;
}

static dnnl_status_t describe_product(dnnl_engine_t engine, const matrix *a, const matrix *b, const matrix *c,
                                      dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out) {
    dnnl_matmul_desc_t product;
    const dnnl_status_t status = dnnl_matmul_desc_init(&product, a, b, NULL, c);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &product, attributes, engine, NULL) : status;
}
#endif

enum { MATRIX_A, MATRIX_B, MATRIX_C, MATRIX_SCRATCH, MATRICES };

struct psk_dnnl_product {
    dnnl_engine_t engine;
    matrix matrices[MATRICES];
    dnnl_primitive_t primitive;
};

#define DNNL_TRY(call)                                                                                                 \
    do {                                                                                                               \
        const dnnl_status_t dnnl_try_status = (call);                                                                  \
        if (dnnl_try_status != dnnl_success)                                                                           \
            return dnnl_try_status;                                                                                    \
    } while (0)

static dnnl_status_t describe_matrix(int64_t rows, int64_t columns, dnnl_data_type_t type, dnnl_format_tag_t tag,
                                     matrix *out) {
    const dnnl_dims_t dims = {rows, columns};
    return matrix_create(out, dims, type, tag);
}

static dnnl_status_t make_attributes(psk_write write, dnnl_primitive_attr_t *out) {
    dnnl_post_ops_t ops;
    DNNL_TRY(dnnl_primitive_attr_create(out));
    /* Else oneDNN keeps one scratchpad for all threads that run the product. */
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user));
    if (write == PSK_SET)
        return dnnl_success;
    DNNL_TRY(dnnl_post_ops_create(&ops));
    dnnl_status_t status = append_sum(ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*out, ops);
    dnnl_post_ops_destroy(ops);
    return status;
}

static dnnl_status_t make_primitive(psk_dnnl_product *product, dnnl_primitive_attr_t attributes) {
    dnnl_primitive_desc_t description;
    matrix *m = product->matrices;
    DNNL_TRY(describe_product(product->engine, &m[MATRIX_A], &m[MATRIX_B], &m[MATRIX_C], attributes, &description));
    dnnl_status_t status = matrix_of_scratch(description, &m[MATRIX_SCRATCH]);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&product->primitive, description);
    dnnl_primitive_desc_destroy(description);
    return status;
}

static dnnl_status_t make_product(const psk_dnnl_shape *s, psk_dnnl_product *product) {
    matrix *m = product->matrices;
    dnnl_primitive_attr_t attributes = NULL;
    DNNL_TRY(dnnl_engine_create(&product->engine, dnnl_cpu, 0));
    DNNL_TRY(describe_matrix(s->m, s->k, dnnl_bf16, dnnl_ab, &m[MATRIX_A]));
    DNNL_TRY(describe_matrix(s->k, s->n, dnnl_bf16, dnnl_BA16a64b2a, &m[MATRIX_B]));
    DNNL_TRY(describe_matrix(s->m, s->n, dnnl_f32, dnnl_ab, &m[MATRIX_C]));
    dnnl_status_t status = make_attributes(s->write, &attributes);
    if (status == dnnl_success)
        status = make_primitive(product, attributes);
    if (attributes != NULL)
        dnnl_primitive_attr_destroy(attributes);
    return status;
}

psk_status psk_dnnl_product_create(const psk_dnnl_shape *shape, psk_dnnl_product **out) {
    *out = NULL;
    psk_dnnl_product *product;
    PSK_TRY(psk_alloc_zero(sizeof *product, "a product of bfloat16", (void **)&product));
    sigset_t before;
    hold_signals(&before);
    const dnnl_status_t status = make_product(shape, product);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status == dnnl_success)
        *out = product;
    else
        psk_dnnl_product_free(product);
    return status_of(status);
}

static dnnl_status_t run_product(const psk_dnnl_product *product, dnnl_stream_t stream, void *const data[MATRICES],
                                 dnnl_memory_t memory[MATRICES]) {
    const int names[MATRICES] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    dnnl_exec_arg_t args[MATRICES];
    for (int i = 0; i < MATRICES; i++) {
        DNNL_TRY(dnnl_memory_create(&memory[i], MATRIX(product->matrices[i]), product->engine, data[i]));
        args[i] = (dnnl_exec_arg_t){names[i], memory[i]};
    }
    DNNL_TRY(dnnl_primitive_execute(product->primitive, stream, MATRICES, args));
    return dnnl_stream_wait(stream);
}

int64_t psk_dnnl_product_scratch(const psk_dnnl_product *product) {
    return (int64_t)dnnl_memory_desc_get_size(MATRIX(product->matrices[MATRIX_SCRATCH]));
}

psk_status psk_dnnl_product_run(const psk_dnnl_product *product, const psk_bf16 *a, const psk_bf16 *b, float *c,
                                void *scratch) {
    void *const data[MATRICES] = {(void *)a, (void *)b, c, scratch};
    dnnl_memory_t memory[MATRICES] = {NULL};
    dnnl_stream_t stream = NULL;
    sigset_t before;
    hold_signals(&before);
    dnnl_status_t status = dnnl_stream_create(&stream, product->engine, dnnl_stream_default_flags);
    if (status == dnnl_success)
        status = run_product(product, stream, data, memory);
    for (int i = 0; i < MATRICES; i++)
        if (memory[i] != NULL)
            dnnl_memory_destroy(memory[i]);
    if (stream != NULL)
        dnnl_stream_destroy(stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status_of(status);
}

void psk_dnnl_product_free(psk_dnnl_product *product) {
    if (product == NULL)
        return;
    if (product->primitive != NULL)
        dnnl_primitive_destroy(product->primitive);
    for (int i = 0; i < MATRICES; i++)
        matrix_free(product->matrices[i]);
    if (product->engine != NULL)
        dnnl_engine_destroy(product->engine);
    psk_free(product);
}

void psk_dnnl_name(char *text, size_t size) {
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

#endif
