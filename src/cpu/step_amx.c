/* Products of a few rows with panels of bfloat16 in tile registers (AMX): 16 steps of 16 columns of a panel are one
 * tile as they lie in memory, 16 rows are another. Up to 32 rows by two panels are worked on at a time, so that two
 * tiles of weights, read once, feed up to four products. The products of a row do not depend on the rows beside it. */
#include "cpu/amx.h"
#include "cpu/kernels.h"
#include "cpu/step.h"
#include "cpu/step_panel.h"

#include <string.h>

#define PANELS 2
#define ROWS   32 /* two tiles of 16 */

/* Tiles of floats: 0 and 1 the first 16 rows by both panels, 2 and 3 the other rows. */
#define TILE_X0 4
#define TILE_X1 5
#define TILE_W0 6
#define TILE_W1 7

/* Rows i ... i + rows - 1 and panels from `panel` on. */
typedef struct panel_block {
    const psk_row_products_args *a;
    const psk_bf16 *x;
    int64_t pairs, i, rows, panel;
} panel_block;

/* rows: of all tiles but weights; steps: of the sum. */
static void configure(int64_t rows, int64_t steps) {
    psk_amx_config config = PSK_AMX_CONFIG;
    const int64_t above = rows < 16 ? rows : 16, below = rows - above > 0 ? rows - above : 1;
    for (int tile = 0; tile < 4; tile++)
        psk_amx_shape(&config, tile, tile < 2 ? above : below, 16);
    psk_amx_shape(&config, TILE_X0, above, steps);
    psk_amx_shape(&config, TILE_X1, below, steps);
    psk_amx_shape(&config, TILE_W0, steps, 16);
    psk_amx_shape(&config, TILE_W1, steps, 16);
    _tile_loadconfig(&config);
}

static void store_sums(const psk_row_products_args *a, const float *sums, int64_t i, int64_t rows, int64_t panel) {
    for (int64_t t = 0; t < rows; t++)
        psk_store_columns(a, i + t, panel * PSK_PANEL, _mm512_loadu_ps(sums + t * 16));
}

/* Fetches the tile of weights that is read four later: the processor's own prefetcher begins anew with every page. */
static inline void fetch_ahead(const psk_bf16 *w) {
    for (int64_t line = 0; line < 16; line++)
        _mm_prefetch((const char *)w + 4 * 1024 + line * 64, _MM_HINT_T0);
}

/* The sums over `count` multiples of `steps` steps from step `first` on, added to tiles 0 ... 3. The last panel may be
 * alone, the rows may fit one tile: both are constants where this is inlined. */
static inline __attribute__((always_inline)) void add_steps(const panel_block *b, bool both_panels, bool both_rows,
                                                            int64_t first, int64_t steps, int64_t count) {
    const psk_bf16 *x = b->x + (b->i * b->pairs + first) * 2, *below = x + 16 * b->pairs * 2;
    const psk_bf16 *w = b->a->panels + (b->panel * b->pairs + first) * PSK_PANEL * 2,
                   *next = w + b->pairs * PSK_PANEL * 2;
    for (int64_t s = 0; s < count; s++) {
        fetch_ahead(w);
        if (both_panels)
            fetch_ahead(next);
        _tile_loadd(TILE_W0, w, 64);
        _tile_loadd(TILE_X0, x, b->pairs * 4);
        _tile_dpbf16ps(0, TILE_X0, TILE_W0);
        if (both_panels) {
            _tile_loadd(TILE_W1, next, 64);
            _tile_dpbf16ps(1, TILE_X0, TILE_W1);
        }
        if (both_rows) {
            _tile_loadd(TILE_X1, below, b->pairs * 4);
            _tile_dpbf16ps(2, TILE_X1, TILE_W0);
            if (both_panels)
                _tile_dpbf16ps(3, TILE_X1, TILE_W1);
        }
        x += steps * 2;
        below += steps * 2;
        w += steps * PSK_PANEL * 2;
        next += steps * PSK_PANEL * 2;
    }
}

/* sums: of the four tiles of floats, += */
static void add_products(const panel_block *b, bool both_panels, int64_t first, int64_t steps, int64_t count,
                         float sums[2 * PANELS][16 * 16]) {
    psk_amx_fence();
    _tile_loadd(0, sums[0], 64);
    _tile_loadd(1, sums[1], 64);
    _tile_loadd(2, sums[2], 64);
    _tile_loadd(3, sums[3], 64);
    if (both_panels && b->rows > 16)
        add_steps(b, true, true, first, steps, count);
    else if (both_panels)
        add_steps(b, true, false, first, steps, count);
    else if (b->rows > 16)
        add_steps(b, false, true, first, steps, count);
    else
        add_steps(b, false, false, first, steps, count);
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    psk_amx_fence();
}

static void block_products(const panel_block *b, bool both_panels) {
    _Alignas(64) float sums[2 * PANELS][16 * 16];
    const int64_t whole = b->pairs / 16, rest = b->pairs % 16, above = b->rows < 16 ? b->rows : 16;
    memset(sums, 0, sizeof sums);
    add_products(b, both_panels, 0, 16, whole, sums);
    if (rest > 0) { /* a new shape empties the registers */
        configure(b->rows, rest);
        add_products(b, both_panels, whole * 16, rest, 1, sums);
        configure(b->rows, 16);
    }
    for (int64_t p = 0; p < (both_panels ? 2 : 1); p++) {
        store_sums(b->a, sums[p], b->i, above, b->panel + p);
        store_sums(b->a, sums[2 + p], b->i + above, b->rows - above, b->panel + p);
    }
}

void psk_step_panel_products_amx(const psk_row_products_args *a, const psk_bf16 *x, int64_t begin, int64_t end) {
    panel_block b = {.a = a, .x = x, .pairs = PSK_CEIL_DIV(a->k, 2)};
    int64_t shaped = 0; /* rows that the registers are made for */
    for (b.panel = begin; b.panel < end; b.panel += PANELS)
        for (b.i = 0; b.i < a->rows; b.i += ROWS) {
            b.rows = a->rows - b.i < ROWS ? a->rows - b.i : ROWS;
            if (b.rows != shaped)
                configure(b.rows, 16);
            shaped = b.rows;
            block_products(&b, end - b.panel >= PANELS);
        }
    _tile_release();
}
