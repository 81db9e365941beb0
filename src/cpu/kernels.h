/* The serial loops of the CPU device: one source (kernels.inc), compiled once per instruction set, chosen when the
 * device is made. A kernel works on the items [begin, end) in the calling thread, and what it computes for an item does
 * not depend on begin and end: that is why results do not depend on the number of threads. Only src/cpu includes this.
 */
#ifndef PSK_KERNELS_H
#define PSK_KERNELS_H

#include "base/bf16.h"
#include "device/ops.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define PSK_CEIL_DIV(x, y) (((x) + (y)-1) / (y))

/* Element by element operations are cut into chunks of this many elements: 16 KiB, a few of them fit the first-level
 * cache. A chunk is never cut, so that which elements fall into the remainder of a vector loop depends on the size
 * alone. */
#define PSK_CHUNK     4096
#define PSK_CHUNKS(n) PSK_CEIL_DIV(n, PSK_CHUNK)

/* embedding_backward is cut into columns of the embedding: two cache lines of every row. */
#define PSK_EMBEDDING_COLUMNS 32

/* A block of a matrix by its steps: element (i, j) is at x[i * row + j * column]. */
typedef struct psk_kernel_matrix {
    const float *x;
    int64_t row, column;
} psk_kernel_matrix;

/* Where the members of a team wait for each other. */
typedef struct psk_fused_barrier {
    atomic_int arrived, round;
    pthread_mutex_t lock; /* of those that sleep until the next round */
    pthread_cond_t next;
} psk_fused_barrier;

/* The threads that work on one item of fused attention. */
typedef struct psk_fused_team {
    int64_t member, size;
    float *workspace; /* of this member */
    float *shared;    /* workspace of member 0 */
    psk_fused_barrier *barrier;
} psk_fused_team;

/* Returns when all members have called it: what each wrote before, all may read after. */
void psk_fused_wait(const psk_fused_team *team);

/* Fused attention with one kind of operands. What is computed does not depend on the teams. */
typedef struct psk_fused_kernels {
    /* Floats of workspace that one thread needs, -1 if the configuration is not fused. */
    int64_t (*workspace)(const psk_fused_attention_args *a, bool backward);
    /* The number of independent items. */
    int64_t (*items)(const psk_fused_attention_args *a, bool backward);
    /* Whether a team of several can work on an item. */
    bool (*divisible)(const psk_fused_attention_args *a);
    void (*item)(const psk_fused_attention_args *a, bool backward, const psk_fused_team *team, int64_t item);

    /* Learned sketches. Floats of workspace that one thread needs, and floats that the gradients of a part of the rows
     * take. */
    int64_t (*sketch_workspace)(const psk_fused_sketch_args *a, bool backward);
    int64_t (*sketch_gradients)(const psk_fused_sketch_args *a);
    /* Makes the weights ready, once for a thread. */
    void (*sketch_begin)(const psk_fused_sketch_args *a, bool backward, float *workspace);
    /* Rows [begin, end) with that workspace; backward: gradients = those of the weights from these rows. */
    void (*sketch_rows)(const psk_fused_sketch_args *a, bool backward, float *workspace, float *gradients,
                        int64_t begin, int64_t end);
    /* a->grads += the gradients of a part. */
    void (*sketch_add)(const psk_fused_sketch_args *a, const float *gradients);
} psk_fused_kernels;

/* Operands of dense products rounded to bfloat16, in the order that these read. Number (i, l), i along the side and l
 * along k, is x[i ldx + l] where along_k, else x[l ldx + i]. */
#define PSK_PACK_COLUMNS 64
#define PSK_PACK_STEPS   32
typedef struct psk_pack_kernels {
    /* Of A, `side` rows of k numbers: (i, l) at y[i ldy + l]. */
    void (*rows)(int64_t side, int64_t k, const float *x, int64_t ldx, bool along_k, psk_bf16 *y, int64_t ldy);
    /* Of B, panels of 64 columns, two numbers along k beside each other: (i, l) at
     *     y[i/64 stride + l/2 128 + i%64 2 + l%2],
     * and zeros up to the next multiples of 64 in i, of 32 in l. */
    void (*panels)(int64_t side, int64_t k, const float *x, int64_t ldx, bool along_k, psk_bf16 *y, int64_t stride);
} psk_pack_kernels;

typedef struct psk_kernels {
#define PSK_KERNEL(name, items, cost) void (*name)(const psk_##name##_args *a, int64_t begin, int64_t end);
#include "cpu/kernels.def"
#undef PSK_KERNEL

    /* Rows [begin, end); theta: (D + 1) / 2 resp. h / 2 frequencies. */
    void (*embedding_forward)(const psk_embedding_forward_args *a, const double *theta, int64_t begin, int64_t end);
    void (*split_heads_forward)(const psk_split_heads_forward_args *a, const double *theta, int64_t begin, int64_t end);
    void (*split_heads_backward)(const psk_split_heads_backward_args *a, const double *theta, int64_t begin,
                                 int64_t end);

    /* Rows [begin, end): dx, and dweight, dbias (=) of these rows alone. */
    void (*layernorm_backward)(const psk_layernorm_backward_args *a, float *dweight, float *dbias, int64_t begin,
                               int64_t end);

    /* Chunks [begin, end) of the heads: x, dx, and sums[i] = <y, dy> of chunk i in float64. */
    void (*head_gain_backward)(const psk_head_gain_backward_args *a, double *sums, int64_t begin, int64_t end);

    /* out[j] (=, +=) sum of x[i, j] over `rows` rows in their order, n columns. x: leading dimension ld */
    void (*sum_rows)(const float *x, int64_t rows, int64_t n, int64_t ld, psk_write write, float *out);

    /* y = x rounded to bfloat16, `rows` rows of n.   x: leading dimension ldx, y: ldy */
    void (*round_bf16)(int64_t rows, int64_t n, const float *x, int64_t ldx, psk_bf16 *y, int64_t ldy);

    /* y (=, +=) x, `rows` rows of n.   x: leading dimension ldx, y: ldy. stream: y is larger than the caches, and
     * what is only written may go past them. */
    void (*store_rows)(int64_t rows, int64_t n, const float *x, int64_t ldx, float *y, int64_t ldy, psk_write write,
                       bool stream);

    /* Sum of x[i]^2 in float64. */
    double (*sum_squares)(const float *x, int64_t n);

    psk_fused_kernels fused;

#if !PSK_WITH_ONEDNN
    /* C = alpha A B + beta C, m x n x k; C is only written if beta == 0. */
    void (*matmul)(int64_t m, int64_t n, int64_t k, float alpha, psk_kernel_matrix a, psk_kernel_matrix b, float beta,
                   float *c, int64_t ldc);
#endif
} psk_kernels;

extern const psk_kernels psk_kernels_baseline;
#if defined(__x86_64__)
extern const psk_kernels psk_kernels_avx2;
extern const psk_kernels psk_kernels_avx512;
extern const psk_fused_kernels psk_fused_avx512bf16; /* operands of products rounded to bfloat16 */
extern const psk_pack_kernels psk_pack_avx512bf16;   /* by an instruction that takes subnormal numbers for 0 */
extern const psk_fused_kernels psk_fused_amx;        /* the same, in tile registers */
#elif defined(__aarch64__)
extern const psk_fused_kernels psk_fused_neonbf16; /* the same */
extern const psk_pack_kernels psk_pack_neonbf16;
#endif

#endif
