/* Fused attention and operands of dense products for AVX-512 with bfloat16 products: x86-64 servers since 2020 (Cooper
 * Lake), 2022 (Zen 4). */
#include "cpu/kernels.h"

#include <math.h>
#include <string.h>

#define LANES 16
#include "cpu/kernels_math.inc"
#include "cpu/kernels_vector.inc"

#include "cpu/kernels_gelu.inc"

#include "cpu/fused_cells_bf16.inc"

#include "cpu/fused_attention.inc"

#include "cpu/pack_bf16.inc"

const psk_fused_kernels psk_fused_avx512bf16 = FUSED_KERNELS;
const psk_pack_kernels psk_pack_avx512bf16 = PACK_KERNELS;
