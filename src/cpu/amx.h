/* Tile registers: their shapes, and what the compiler has to be told. Only files for AMX include this. */
#ifndef PSK_AMX_H
#define PSK_AMX_H

#include <immintrin.h>
#include <stdint.h>

/* What ldtilecfg reads. */
typedef struct psk_amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} psk_amx_config;
_Static_assert(sizeof(psk_amx_config) == 64, "the layout of ldtilecfg");

/* No tile has a shape yet. */
#define PSK_AMX_CONFIG ((psk_amx_config){.palette = 1})

/* rows x columns of 4 bytes, 16 at most. */
static inline void psk_amx_shape(psk_amx_config *config, int tile, int64_t rows, int64_t columns) {
    config->rows[tile] = (uint8_t)rows;
    config->row_bytes[tile] = (uint16_t)(4 * columns);
}

/* Loads and stores of tiles do not tell the compiler that they read and write memory: what is written on one side of
 * this is not moved to the other. */
static inline void psk_amx_fence(void) {
    __asm__ volatile("" ::: "memory");
}

#endif
