/* What the products with panels share on AVX-512. Only files for it include this. */
#ifndef PSK_STEP_PANEL_H
#define PSK_STEP_PANEL_H

#include "device/ops.h"

#include <immintrin.h>

/* y = alpha sum + beta y in row i, columns j ... j + 15, those before n. */
static inline void psk_store_columns(const psk_row_products_args *a, int64_t i, int64_t j, __m512 sum) {
    float *y = a->y + i * a->y_ld + j;
    const __mmask16 mask = (__mmask16)(a->n - j >= 16 ? 0xffff : (1 << (a->n - j)) - 1);
    sum = _mm512_mul_ps(_mm512_set1_ps(a->alpha), sum);
    if (a->beta != 0.0f)
        sum = _mm512_fmadd_ps(_mm512_set1_ps(a->beta), _mm512_maskz_loadu_ps(mask, y), sum);
    _mm512_mask_storeu_ps(y, mask, sum);
}

#endif
