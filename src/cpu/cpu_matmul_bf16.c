/* Matrix products with operands rounded to bfloat16 and sums in float32. The operands are floats in memory: they are
 * rounded into scratch memory first, each once, which costs 1/n + 1/m of what the product does; C is then cut into
 * tiles as in cpu_matmul.c. A call is done in pieces along m and k (a later piece of k adds to C), so that what is
 * rounded stays small. Pieces and tiles depend on the shape alone: the same bits come out for any number of threads. */
#include "base/memory.h"
#include "cpu/cpu.h"
#include "cpu/cpu_dnnl.h"

#include <omp.h>
#include <string.h>

#if PSK_WITH_ONEDNN

/* Below these sizes rounding the operands costs what it gains. */
#define LEAST_SIDE 64
#define LEAST_K    32

/* Most of op(A) that is rounded at a time: 8 MiB in bfloat16, and of k, so that B's piece is no larger for n up to
 * 2048. */
#define PIECE_NUMBERS (INT64_C(4) << 20)
#define PIECE_K       2048

/* oneDNN makes code and descriptors for every shape: kept for so many, then all are made afresh. */
#define KEPT_PRODUCTS 256

struct psk_cpu_bf16 {
    char *work; /* scratch memory of oneDNN's, for every thread */
    int64_t work_bytes;
    int64_t count;
    struct {
        psk_dnnl_shape shape;
        psk_dnnl_product *product;
    } kept[KEPT_PRODUCTS];
};

static void forget_products(psk_cpu_bf16 *kept) {
    for (int64_t i = 0; i < kept->count; i++)
        psk_dnnl_product_free(kept->kept[i].product);
    kept->count = 0;
}

void psk_cpu_bf16_free(psk_cpu_bf16 *kept) {
    if (kept == NULL)
        return;
    forget_products(kept);
    psk_free(kept->work);
    psk_free(kept);
}

static bool same_shape(const psk_dnnl_shape *x, const psk_dnnl_shape *y) {
    return x->m == y->m && x->n == y->n && x->k == y->k && x->lda == y->lda && x->ldb == y->ldb && x->ldc == y->ldc &&
           x->a_orientation == y->a_orientation && x->b_orientation == y->b_orientation && x->write == y->write;
}

static psk_status find_product(psk_cpu_bf16 *kept, const psk_dnnl_shape *shape, const psk_dnnl_product **out) {
    for (int64_t i = 0; i < kept->count; i++)
        if (same_shape(&kept->kept[i].shape, shape)) {
            *out = kept->kept[i].product;
            return PSK_OK;
        }
    psk_dnnl_product *product = NULL;
    psk_status status = PSK_OK;
#pragma omp parallel num_threads(1)
    {
        psk_dnnl_stay_serial(); /* the number of threads of a product is that of where it is made */
        status = psk_dnnl_product_create(shape, &product);
    }
    PSK_TRY(status);
    kept->kept[kept->count].shape = *shape;
    kept->kept[kept->count++].product = product;
    *out = product;
    return PSK_OK;
}

/* One operand of a piece: rows x columns as it is stored, and its copy in bfloat16 with a leading dimension that keeps
 * rows apart in the sets of a cache. */
typedef struct operand {
    const float *x;
    int64_t rows, columns, ldx, ld;
    psk_bf16 *rounded;
} operand;

static operand make_operand(const float *x, int64_t ldx, psk_orientation orientation, int64_t rows, int64_t columns) {
    const bool plain = orientation == PSK_PLAIN;
    operand o = {.x = x, .ldx = ldx, .rows = plain ? rows : columns, .columns = plain ? columns : rows};
    o.ld = PSK_CEIL_DIV(o.columns, 32) * 32;
    o.ld += o.ld % 512 == 0 ? 32 : 0;
    return o;
}

/* One piece: C of m x n (=, +=) op(A) op(B) over k. */
typedef struct piece {
    operand a, b;
    psk_orientation a_orientation, b_orientation;
    int64_t m, n, k, ldc;
    float *c;
    psk_write write;
    psk_cpu_tiling tiling;
    const psk_dnnl_product *products[2][2]; /* of tiles inside and at the lower edge, inside and at the right edge */
} piece;

/* Where tile `index` lies and how large it is. */
typedef struct tile {
    int64_t i, j, m, n;
    const psk_dnnl_product *product;
} tile;

static tile tile_at(const piece *p, int64_t index) {
    const psk_cpu_tiling *t = &p->tiling;
    const int64_t down = index / t->across, across = index % t->across;
    const bool last_down = down == t->down - 1, last_across = across == t->across - 1;
    tile at = {.i = down * t->rows, .j = across * t->columns, .product = p->products[last_down][last_across]};
    at.m = last_down ? p->m - at.i : t->rows;
    at.n = last_across ? p->n - at.j : t->columns;
    return at;
}

/* As in cpu_matmul.c, but a last tile of few columns becomes a part of the one before: oneDNN 3.7 leaves C alone where
 * it is one column. */
#define LEAST_COLUMNS 16
static psk_cpu_tiling tile_piece(int64_t m, int64_t n) {
    psk_cpu_tiling t = psk_cpu_tile(1, m, n);
    if (t.across > 1 && n - (t.across - 1) * t.columns < LEAST_COLUMNS)
        t.across--;
    t.count = t.down * t.across;
    return t;
}

/* The products of the at most four shapes of tiles. */
static psk_status find_products(psk_cpu_bf16 *kept, piece *p) {
    const psk_cpu_tiling *t = &p->tiling;
    if (kept->count > KEPT_PRODUCTS - 4)
        forget_products(kept);
    for (int down = 0; down < 2; down++)
        for (int across = 0; across < 2; across++) {
            const psk_dnnl_shape shape = {
                .m = down ? p->m - (t->down - 1) * t->rows : t->rows,
                .n = across ? p->n - (t->across - 1) * t->columns : t->columns,
                .k = p->k,
                .lda = p->a.ld,
                .ldb = p->b.ld,
                .ldc = p->ldc,
                .a_orientation = p->a_orientation,
                .b_orientation = p->b_orientation,
                .write = p->write,
            };
            if ((down || t->down > 1) && (across || t->across > 1))
                PSK_TRY(find_product(kept, &shape, &p->products[down][across]));
        }
    return PSK_OK;
}

/* A multiple of the alignment, so that every thread's part is aligned; 0 where the products need none. */
static int64_t scratch_of_thread(const piece *p) {
    int64_t most = 0;
    for (int down = 0; down < 2; down++)
        for (int across = 0; across < 2; across++) {
            const psk_dnnl_product *product = p->products[down][across];
            const int64_t bytes = product != NULL ? psk_dnnl_product_scratch(product) : 0;
            most = bytes > most ? bytes : most;
        }
    return PSK_CEIL_DIV(most, PSK_ALIGNMENT) * PSK_ALIGNMENT;
}

static psk_status reserve_work(psk_cpu_bf16 *kept, int64_t bytes) {
    if (bytes <= kept->work_bytes)
        return PSK_OK;
    psk_free(kept->work);
    kept->work = NULL;
    kept->work_bytes = 0;
    PSK_TRY(psk_alloc((size_t)bytes, "scratch memory of oneDNN", (void **)&kept->work));
    kept->work_bytes = bytes;
    return PSK_OK;
}

/* The share of the calling thread. Numbers beside a row become 0: oneDNN 3 reads some of them, and a NaN there would
 * not vanish. */
static void round_operand(const psk_kernels *kernels, const operand *o) {
    const psk_cpu_range share = psk_cpu_share(o->rows);
    for (int64_t row = share.begin; row < share.end; row++)
        memset(o->rounded + row * o->ld + o->columns, 0, (size_t)(o->ld - o->columns) * sizeof *o->rounded);
    kernels->round_bf16(share.end - share.begin, o->columns, o->x + share.begin * o->ldx, o->ldx,
                        o->rounded + share.begin * o->ld, o->ld);
}

static psk_status run_tile(const piece *p, int64_t index, void *scratch) {
    const tile at = tile_at(p, index);
    const psk_bf16 *a = p->a.rounded + at.i * (p->a_orientation == PSK_PLAIN ? p->a.ld : 1);
    const psk_bf16 *b = p->b.rounded + at.j * (p->b_orientation == PSK_PLAIN ? 1 : p->b.ld);
    return psk_dnnl_product_run(at.product, a, b, p->c + at.i * p->ldc + at.j, scratch);
}

static psk_status run_piece(psk_device *device, piece *p, bool new_b) {
    psk_cpu *cpu = psk_cpu_state(device);
    PSK_TRY(find_products(cpu->bf16, p));
    const int64_t each = scratch_of_thread(p);
    PSK_TRY(reserve_work(cpu->bf16, each * device->threads));
    int failed = PSK_OK;
#pragma omp parallel num_threads(device->threads) reduction(max : failed)
    {
        void *scratch = each > 0 ? cpu->bf16->work + omp_get_thread_num() * each : NULL;
        psk_dnnl_stay_serial();
        round_operand(cpu->kernels, &p->a);
        if (new_b)
            round_operand(cpu->kernels, &p->b);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t index = 0; index < p->tiling.count; index++) {
            const int status = (int)run_tile(p, index, scratch);
            failed = status > failed ? status : failed;
        }
    }
    return (psk_status)failed;
}

bool psk_cpu_bf16_serves(const psk_device *device, const psk_matmul_args *a) {
    return device->precision == PSK_PRECISION_BF16 && a->batch == 1 && a->alpha == 1.0f &&
           (a->beta == 0.0f || a->beta == 1.0f) && a->m >= LEAST_SIDE && a->n >= LEAST_SIDE && a->k >= LEAST_K;
}

static int64_t lesser(int64_t x, int64_t y) {
    return x < y ? x : y;
}

/* Rows of op(A) rounded at a time. */
static int64_t piece_rows(const psk_matmul_args *a) {
    const int64_t fitting = PIECE_NUMBERS / lesser(a->k, PIECE_K);
    return lesser(fitting, a->m);
}

/* Scratch memory for a piece of A and one of B. */
static psk_status take_scratch(psk_device *device, const psk_matmul_args *a, psk_bf16 **a_rounded,
                               psk_bf16 **b_rounded) {
    const int64_t m = piece_rows(a), k = lesser(a->k, PIECE_K);
    const operand pa = make_operand(NULL, 0, a->a_orientation, m, k),
                  pb = make_operand(NULL, 0, a->b_orientation, k, a->n);
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, (pa.rows * pa.ld + pb.rows * pb.ld) * (int64_t)sizeof(psk_bf16), &scratch));
    *a_rounded = scratch;
    *b_rounded = *a_rounded + pa.rows * pa.ld;
    return PSK_OK;
}

static const float *block_of(const float *x, int64_t ld, psk_orientation orientation, int64_t i, int64_t j) {
    return x + (orientation == PSK_PLAIN ? i * ld + j : j * ld + i);
}

psk_status psk_cpu_matmul_bf16(psk_device *device, const psk_matmul_args *a) {
    psk_cpu *cpu = psk_cpu_state(device);
    psk_bf16 *a_rounded, *b_rounded;
    if (cpu->bf16 == NULL)
        PSK_TRY(psk_alloc_zero(sizeof *cpu->bf16, "shapes of products", (void **)&cpu->bf16));
    PSK_TRY(take_scratch(device, a, &a_rounded, &b_rounded));
    const int64_t rows = piece_rows(a);
    for (int64_t k0 = 0; k0 < a->k; k0 += PIECE_K)
        for (int64_t i0 = 0; i0 < a->m; i0 += rows) {
            const int64_t m = lesser(rows, a->m - i0), k = lesser(PIECE_K, a->k - k0);
            piece p = {
                .a = make_operand(block_of(a->a, a->lda, a->a_orientation, i0, k0), a->lda, a->a_orientation, m, k),
                .b = make_operand(block_of(a->b, a->ldb, a->b_orientation, k0, 0), a->ldb, a->b_orientation, k, a->n),
                .a_orientation = a->a_orientation,
                .b_orientation = a->b_orientation,
                .m = m,
                .n = a->n,
                .k = k,
                .ldc = a->ldc,
                .c = a->c + i0 * a->ldc,
                .write = k0 > 0 || a->beta == 1.0f ? PSK_ADD : PSK_SET,
                .tiling = tile_piece(m, a->n),
            };
            p.a.rounded = a_rounded;
            p.b.rounded = b_rounded;
            const psk_status status = run_piece(device, &p, i0 == 0);
            if (status != PSK_OK)
                return psk_cpu_matmul_failed(status, a);
        }
    return PSK_OK;
}

#else

bool psk_cpu_bf16_serves(const psk_device *device, const psk_matmul_args *a) {
    (void)device;
    (void)a;
    return false;
}

psk_status psk_cpu_matmul_bf16(psk_device *device, const psk_matmul_args *a) {
    (void)device;
    (void)a;
    return psk_fail(PSK_ERROR_INTERNAL, "products of bfloat16 need oneDNN");
}

void psk_cpu_bf16_free(psk_cpu_bf16 *kept) {
    (void)kept;
}

#endif
