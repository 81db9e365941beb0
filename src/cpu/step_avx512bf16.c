/* Products of a few rows with panels of bfloat16, for AVX-512 with instructions for them: 16 columns at a time, two
 * steps along k an instruction. Rows are worked on eight by three panels at a time; while the later rows of a group of
 * panels are computed the next group is fetched, so that memory and arithmetic work at once. */
#include "cpu/kernels.h"
#include "cpu/step.h"
#include "cpu/step_panel.h"

#include <immintrin.h>
#include <string.h>

#define MOST_ROWS   8
#define MOST_PANELS 3

typedef struct panel_group {
    const psk_row_products_args *a;
    const char *panels[MOST_PANELS], *next; /* what is to be fetched meanwhile; NULL: nothing */
    const psk_bf16 *x;
    int64_t pairs, first; /* column */
} panel_group;

static inline __m512i load_pair(const psk_bf16 *x) {
    int bits;
    memcpy(&bits, x, sizeof bits);
    return _mm512_set1_epi32(bits);
}

/* rows and panels are constants where this is inlined. */
static inline __attribute__((always_inline)) void panel_tile(const panel_group *g, int64_t rows, int64_t panels,
                                                             int64_t i) {
    __m512 sum[MOST_ROWS][MOST_PANELS];
    const psk_bf16 *x = g->x + i * 2 * g->pairs;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t p = 0; p < panels; p++)
            sum[t][p] = _mm512_setzero_ps();
    for (int64_t l = 0; l < g->pairs; l++) {
        __m512bh w[MOST_PANELS];
        for (int64_t p = 0; p < panels; p++)
            w[p] = (__m512bh)_mm512_loadu_si512(g->panels[p] + l * 64);
        if (g->next != NULL)
            _mm_prefetch(g->next + l * 64, _MM_HINT_T1);
        for (int64_t t = 0; t < rows; t++) {
            const __m512bh pair = (__m512bh)load_pair(x + (t * g->pairs + l) * 2);
            for (int64_t p = 0; p < panels; p++)
                sum[t][p] = _mm512_dpbf16_ps(sum[t][p], pair, w[p]);
        }
    }
    for (int64_t t = 0; t < rows; t++)
        for (int64_t p = 0; p < panels; p++)
            psk_store_columns(g->a, i + t, g->first + p * PSK_PANEL, sum[t][p]);
}

static inline __attribute__((always_inline)) void panel_rows(panel_group *g, int64_t panels, const char *next,
                                                             int64_t next_panels) {
    const int64_t size = g->pairs * 64;
    int64_t i = 0;
    for (int64_t turn = 0; i + MOST_ROWS <= g->a->rows; i += MOST_ROWS, turn++) {
        g->next = turn > 0 && turn <= next_panels ? next + (turn - 1) * size : NULL;
        panel_tile(g, MOST_ROWS, panels, i);
    }
    g->next = NULL;
    for (; i + 4 <= g->a->rows; i += 4)
        panel_tile(g, 4, panels, i);
    for (; i < g->a->rows; i++)
        panel_tile(g, 1, panels, i);
}

void psk_step_panel_products_avx512bf16(const psk_row_products_args *a, const psk_bf16 *x, int64_t begin, int64_t end) {
    panel_group g = {.a = a, .x = x, .pairs = PSK_CEIL_DIV(a->k, 2)};
    const char *data = (const char *)a->panels;
    const int64_t size = g.pairs * 64;
    for (int64_t panel = begin; panel < end;) {
        const int64_t left = end - panel, panels = left < MOST_PANELS ? 1 : MOST_PANELS;
        for (int64_t p = 0; p < panels; p++)
            g.panels[p] = data + (panel + p) * size;
        g.first = panel * PSK_PANEL;
        panel += panels;
        const int64_t next = end - panel < MOST_PANELS ? end - panel : MOST_PANELS;
        if (panels == MOST_PANELS)
            panel_rows(&g, MOST_PANELS, data + panel * size, next);
        else
            panel_rows(&g, 1, data + panel * size, next);
    }
}
