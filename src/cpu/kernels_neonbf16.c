/* Fused attention and operands of dense products for NEON with bfloat16 products: aarch64 servers since 2021 (Neoverse
 * V1, N2). */
#include "cpu/kernels.h"

#include <math.h>
#include <string.h>

#define LANES 4
#include "cpu/kernels_math.inc"
#include "cpu/kernels_vector.inc"

#include "cpu/kernels_gelu.inc"

#include "cpu/fused_cells_neonbf16.inc"

#include "cpu/fused_attention.inc"

#include "cpu/pack_bf16.inc"

const psk_fused_kernels psk_fused_neonbf16 = FUSED_KERNELS;
const psk_pack_kernels psk_pack_neonbf16 = PACK_KERNELS;
