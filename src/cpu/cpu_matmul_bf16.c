/* Matrix products with operands rounded to bfloat16 and sums in float32. The operands are floats in memory, and C is as
 * a rule larger than the caches: reading and writing them takes longer than the products if it is not done in long
 * runs, and each once. So the operands are packed as oneDNN's fastest kernels read them, C is cut into tiles, and
 *   - the smaller operand, `inner`, is packed first, by all threads together;
 *   - the larger one, `outer`, is packed by each thread for the row (or column) of tiles it is at, into memory that its
 *     second-level cache keeps;
 *   - a tile of C is computed in such memory too, step by step along k, and then stored or added, past the caches if C
 * is larger than they.
 *
 * A call is done in pieces along k (a later piece adds to C), so that what is packed stays small. Pieces, steps and
 * tiles depend on the shape alone: the same bits come out for any number of threads. */
#include "base/memory.h"
#include "cpu/cpu.h"
#include "cpu/cpu_dnnl.h"

#include <omp.h>

#if PSK_WITH_ONEDNN

/* Below these sizes rounding the operands costs what it gains. */
#define LEAST_SIDE 64
#define LEAST_K    32

/* The parts that the two sides of C are cut into, from large (each tile reads its parts of A and B once more, so fewer
 * are faster) to small. A tile of the largest takes 0.4 MiB for outer's part of a step, 0.75 for C; inner's part
 * streams by. */
typedef struct part_sizes {
    int64_t outer, inner;
} part_sizes;
static const part_sizes sizes[] = {{256, 768}, {128, 768}, {128, 384}, {64, 384}, {64, 192}};

/* A last part of fewer becomes a part of the one before: oneDNN 3.7 leaves C alone where it is one column. */
#define LEAST_PART 16

/* Of k in a step: longer ones are slower in oneDNN 2.6. */
#define STEP_K 768

/* Of k in a piece: bounds what of inner is packed, and, where tiles share outer's parts, of outer too. */
#define PIECE_K        8192
#define SHARED_PIECE_K 2048

/* Of C from which on it is written past the caches: whoever reads it next would not find it there anyway. */
#define STREAM_BYTES (INT64_C(4) << 20)

/* oneDNN makes code and descriptors for every shape: kept for so many, then all are made afresh. */
#define KEPT_PRODUCTS 256

struct psk_cpu_bf16 {
    char *work; /* of every thread */
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
    return x->m == y->m && x->n == y->n && x->k == y->k && x->write == y->write;
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

static int64_t round_up(int64_t x, int64_t unit) {
    return PSK_CEIL_DIV(x, unit) * unit;
}

/* A side of C in `count` parts: `size` long but for the last, which may have up to LEAST_PART more. */
typedef struct parts {
    int64_t length, size, count;
} parts;

static parts make_parts(int64_t length, int64_t most) {
    parts p = {.length = length, .size = psk_cpu_even_part(length, most, PSK_PACK_COLUMNS)};
    p.count = PSK_CEIL_DIV(length, p.size);
    if (p.count > 1 && length - (p.count - 1) * p.size < LEAST_PART)
        p.count--;
    return p;
}

/* The last part, or one before; 0: there is none. */
static int64_t part_length(const parts *p, bool last) {
    return last ? p->length - (p->count - 1) * p->size : p->count > 1 ? p->size : 0;
}

static int64_t longest_part(const parts *p) {
    return p->size + LEAST_PART;
}

/* One operand of a piece: the rows of A or the columns of B, by k, which is cut into steps. */
typedef struct operand {
    const float *x;
    int64_t ldx, k, step;
    parts side;
    bool along_k;   /* whether neighbours in memory are neighbours along k: A as it is, B transposed */
    bool in_panels; /* packed: B */
} operand;

static int64_t steps_of(const operand *o) {
    return PSK_CEIL_DIV(o->k, o->step);
}

static int64_t step_length(const operand *o, int64_t step) {
    return step < steps_of(o) - 1 ? o->step : o->k - step * o->step;
}

/* What is packed: `side` rows or columns, step after step; of how many numbers, and where row or column i of a step is
 * (i: a multiple of a panel where there are panels). */
static int64_t packed_side(const operand *o, int64_t side) {
    return o->in_panels ? round_up(side, PSK_PACK_COLUMNS) : side;
}
static int64_t packed_length(const operand *o, int64_t step) {
    return o->in_panels ? round_up(step_length(o, step), PSK_PACK_STEPS) : step_length(o, step);
}
static int64_t packed_numbers(const operand *o, int64_t side, int64_t steps) {
    return packed_side(o, side) * (o->in_panels ? round_up(o->step, PSK_PACK_STEPS) : o->step) * steps;
}
static int64_t packed_offset(const operand *o, int64_t side, int64_t step, int64_t i) {
    return packed_numbers(o, side, step) + i * packed_length(o, step);
}

/* Packs (first ... first + count - 1) x (l0 ... l0 + length - 1) of a step to y, where number (first, l0) belongs. */
static void pack(const psk_pack_kernels *kernels, const operand *o, int64_t step, int64_t first, int64_t count,
                 int64_t l0, int64_t length, psk_bf16 *y) {
    const int64_t l = step * o->step + l0;
    const float *x = o->x + (o->along_k ? first * o->ldx + l : l * o->ldx + first);
    if (o->in_panels)
        kernels->panels(count, length, x, o->ldx, o->along_k, y, PSK_PACK_COLUMNS * packed_length(o, step));
    else
        kernels->rows(count, length, x, o->ldx, o->along_k, y, packed_length(o, step));
}

/* One piece: C of m x n (=, +=) A B over k. */
typedef struct piece {
    operand a, b;
    bool a_is_outer;
    int64_t ldc;
    float *c;
    psk_write write;
    bool stream;
    /* Of tiles inside and at the lower edge, inside and at the right edge, the first step and later ones, steps inside
     * and the last: what there is of these. */
    const psk_dnnl_product *products[2][2][2][2];
} piece;

static const operand *outer_of(const piece *p) {
    return p->a_is_outer ? &p->a : &p->b;
}
static const operand *inner_of(const piece *p) {
    return p->a_is_outer ? &p->b : &p->a;
}

/* Where tile `index` lies and how large it is. Tiles that share a part of the outer operand follow each other. */
typedef struct tile {
    int64_t i, j, m, n;
    int64_t outer; /* the index of that part */
    const psk_dnnl_product *const (*products)[2];
} tile;

static tile tile_at(const piece *p, int64_t index) {
    const parts *rows = &p->a.side, *columns = &p->b.side;
    const int64_t length = inner_of(p)->side.count, outer = index / length, inner = index % length;
    const int64_t down = p->a_is_outer ? outer : inner, across = p->a_is_outer ? inner : outer;
    const bool last_down = down == rows->count - 1, last_across = across == columns->count - 1;
    return (tile){
        .i = down * rows->size,
        .j = across * columns->size,
        .m = part_length(rows, last_down),
        .n = part_length(columns, last_across),
        .outer = outer,
        .products = p->products[last_down][last_across],
    };
}

/* The products of one shape of tile. */
static psk_status find_steps(psk_cpu_bf16 *kept, const piece *p, psk_dnnl_shape shape,
                             const psk_dnnl_product *products[2][2]) {
    const int64_t steps = steps_of(&p->a);
    for (int later = 0; later < 2; later++)
        for (int last = 0; last < 2; last++) {
            const bool met = later ? steps > 2 - last : last == (steps == 1);
            shape.k = step_length(&p->a, last ? steps - 1 : 0);
            shape.write = later ? PSK_ADD : PSK_SET;
            if (met)
                PSK_TRY(find_product(kept, &shape, &products[later][last]));
        }
    return PSK_OK;
}

#define PIECE_PRODUCTS 16
static psk_status find_products(psk_cpu_bf16 *kept, piece *p) {
    if (kept->count > KEPT_PRODUCTS - PIECE_PRODUCTS)
        forget_products(kept);
    for (int down = 0; down < 2; down++)
        for (int across = 0; across < 2; across++) {
            const psk_dnnl_shape shape = {
                .m = part_length(&p->a.side, down),
                .n = part_length(&p->b.side, across),
            };
            if (shape.m > 0 && shape.n > 0)
                PSK_TRY(find_steps(kept, p, shape, p->products[down][across]));
        }
    return PSK_OK;
}

/* Bytes of memory, each a multiple of the alignment: what all threads share, and what each has alone. */
typedef struct work_plan {
    int64_t inner, outer, tile, scratch; /* scratch: oneDNN's, 0 where the products need none */
} work_plan;

static int64_t aligned_bytes(int64_t count, size_t size) {
    return PSK_CEIL_DIV(count * (int64_t)size, PSK_ALIGNMENT) * PSK_ALIGNMENT;
}

/* Whether each part of outer is read by one tile: then a step of it is packed at a time. */
static bool outer_passes_by(const piece *p) {
    return inner_of(p)->side.count == 1;
}

static work_plan plan_work(const piece *p) {
    const operand *outer = outer_of(p), *inner = inner_of(p);
    const int64_t held = outer_passes_by(p) ? 1 : steps_of(outer);
    work_plan plan = {
        .inner = aligned_bytes(packed_numbers(inner, inner->side.length, steps_of(inner)), sizeof(psk_bf16)),
        .outer = aligned_bytes(packed_numbers(outer, longest_part(&outer->side), held), sizeof(psk_bf16)),
        .tile = aligned_bytes(longest_part(&p->a.side) * longest_part(&p->b.side), sizeof(float)),
    };
    const psk_dnnl_product *const *products = &p->products[0][0][0][0];
    for (int i = 0; i < PIECE_PRODUCTS; i++) {
        const int64_t bytes = products[i] != NULL ? aligned_bytes(psk_dnnl_product_scratch(products[i]), 1) : 0;
        plan.scratch = bytes > plan.scratch ? bytes : plan.scratch;
    }
    return plan;
}

static psk_status reserve_work(psk_cpu_bf16 *kept, int64_t bytes) {
    if (bytes <= kept->work_bytes)
        return PSK_OK;
    psk_free(kept->work);
    kept->work = NULL;
    kept->work_bytes = 0;
    PSK_TRY(psk_alloc((size_t)bytes, "rounded operands of products", (void **)&kept->work));
    kept->work_bytes = bytes;
    return PSK_OK;
}

/* What a thread works with. */
typedef struct worker {
    const psk_cpu *cpu;
    const psk_bf16 *inner;
    psk_bf16 *outer;
    int64_t held; /* the part of the outer operand that is there, -1: none */
    float *tile;
    void *scratch;
} worker;

static worker make_worker(const psk_cpu *cpu, const work_plan *plan, int thread) {
    char *const work = cpu->bf16->work;
    char *const own = work + plan->inner + thread * (plan->outer + plan->tile + plan->scratch);
    return (worker){
        .cpu = cpu,
        .inner = (const psk_bf16 *)work,
        .outer = (psk_bf16 *)own,
        .held = -1,
        .tile = (float *)(own + plan->outer),
        .scratch = plan->scratch > 0 ? own + plan->outer + plan->tile : NULL,
    };
}

/* Step `step` of the outer operand's part for a tile. */
static const psk_bf16 *outer_part(const piece *p, const tile *at, int64_t step, worker *w) {
    const operand *o = outer_of(p);
    const int64_t first = p->a_is_outer ? at->i : at->j, count = p->a_is_outer ? at->m : at->n;
    psk_bf16 *where = w->outer + (outer_passes_by(p) ? 0 : packed_offset(o, count, step, 0));
    if (w->held != at->outer)
        pack(w->cpu->pack, o, step, first, count, 0, step_length(o, step), where);
    return where;
}

static psk_status run_tile(const piece *p, int64_t index, worker *w) {
    const tile at = tile_at(p, index);
    const operand *inner = inner_of(p);
    const int64_t steps = steps_of(inner);
    for (int64_t step = 0; step < steps; step++) {
        const psk_bf16 *x = outer_part(p, &at, step, w);
        const psk_bf16 *y = w->inner + packed_offset(inner, inner->side.length, step, p->a_is_outer ? at.j : at.i);
        const psk_dnnl_product *product = at.products[step > 0][step == steps - 1];
        PSK_TRY(psk_dnnl_product_run(product, p->a_is_outer ? x : y, p->a_is_outer ? y : x, w->tile, w->scratch));
    }
    w->held = at.outer;
    w->cpu->kernels->store_rows(at.m, at.n, w->tile, at.n, p->c + at.i * p->ldc + at.j, p->ldc, p->write, p->stream);
    return PSK_OK;
}

/* Packs the inner operand, all threads of the team together: what lies along k by so many rows or columns, what lies
 * across by so many along k, so that memory is read in long runs. */
#define INNER_SIDE PSK_PACK_COLUMNS
#define INNER_K    PSK_PACK_STEPS
static void pack_inner(const piece *p, const psk_pack_kernels *kernels, psk_bf16 *packed) {
    const operand *o = inner_of(p);
    const int64_t side = o->side.length, unit = o->along_k ? INNER_SIDE : INNER_K;
    const int64_t each = PSK_CEIL_DIV(o->along_k ? side : o->step, unit);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < steps_of(o) * each; item++) {
        const int64_t step = item / each, at = item % each * unit, length = step_length(o, step);
        const int64_t left = (o->along_k ? side : length) - at, count = left < unit ? left : unit;
        psk_bf16 *y = packed + packed_offset(o, side, step, 0);
        if (o->along_k)
            pack(kernels, o, step, at, count, 0, length, y + at * packed_length(o, step));
        else if (count > 0)
            pack(kernels, o, step, 0, side, at, count, y + (o->in_panels ? at * PSK_PACK_COLUMNS : at));
    }
}

static psk_status run_piece(psk_device *device, piece *p) {
    psk_cpu *cpu = psk_cpu_state(device);
    PSK_TRY(find_products(cpu->bf16, p));
    const work_plan plan = plan_work(p);
    PSK_TRY(reserve_work(cpu->bf16, plan.inner + device->threads * (plan.outer + plan.tile + plan.scratch)));
    int failed = PSK_OK;
#pragma omp parallel num_threads(device->threads) reduction(max : failed)
    {
        worker w = make_worker(cpu, &plan, omp_get_thread_num());
        psk_dnnl_stay_serial();
        pack_inner(p, cpu->pack, (psk_bf16 *)cpu->bf16->work);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < p->a.side.count * p->b.side.count; index++) {
            const int status = (int)run_tile(p, index, &w);
            failed = status > failed ? status : failed;
        }
    }
    return (psk_status)failed;
}

bool psk_cpu_bf16_serves(const psk_device *device, const psk_matmul_args *a) {
    return device->precision == PSK_PRECISION_BF16 && a->batch == 1 && a->alpha == 1.0f &&
           (a->beta == 0.0f || a->beta == 1.0f) && a->m >= LEAST_SIDE && a->n >= LEAST_SIDE && a->k >= LEAST_K;
}

static void choose_parts(int64_t outer_length, int64_t inner_length, parts *outer, parts *inner) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        *outer = make_parts(outer_length, sizes[i].outer);
        *inner = make_parts(inner_length, sizes[i].inner);
        if (outer->count * inner->count >= PSK_TILES_WANTED)
            return;
    }
}

/* The call as one piece, but for its steps. */
static piece make_whole(const psk_matmul_args *a) {
    piece p = {
        .a = {.x = a->a, .ldx = a->lda, .k = a->k, .along_k = a->a_orientation == PSK_PLAIN},
        .b = {.x = a->b, .ldx = a->ldb, .k = a->k, .along_k = a->b_orientation == PSK_TRANSPOSED, .in_panels = true},
        .a_is_outer = a->m >= a->n,
        .ldc = a->ldc,
        .c = a->c,
        .stream = a->m * a->n * (int64_t)sizeof(float) > STREAM_BYTES,
    };
    if (p.a_is_outer)
        choose_parts(a->m, a->n, &p.a.side, &p.b.side);
    else
        choose_parts(a->n, a->m, &p.b.side, &p.a.side);
    return p;
}

static void cut_operand(operand *o, int64_t k0, int64_t k) {
    o->x += o->along_k ? k0 : k0 * o->ldx;
    o->k = k;
    o->step = psk_cpu_even_part(k, STEP_K, PSK_PACK_STEPS);
}

psk_status psk_cpu_matmul_bf16(psk_device *device, const psk_matmul_args *a) {
    psk_cpu *cpu = psk_cpu_state(device);
    if (cpu->bf16 == NULL)
        PSK_TRY(psk_alloc_zero(sizeof *cpu->bf16, "shapes of products", (void **)&cpu->bf16));
    const piece whole = make_whole(a);
    const int64_t most = psk_cpu_even_part(a->k, outer_passes_by(&whole) ? PIECE_K : SHARED_PIECE_K, PSK_PACK_STEPS);
    for (int64_t k0 = 0; k0 < a->k; k0 += most) {
        const int64_t k = a->k - k0 < most ? a->k - k0 : most;
        piece p = whole;
        cut_operand(&p.a, k0, k);
        cut_operand(&p.b, k0, k);
        p.write = k0 > 0 || a->beta == 1.0f ? PSK_ADD : PSK_SET;
        const psk_status status = run_piece(device, &p);
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
