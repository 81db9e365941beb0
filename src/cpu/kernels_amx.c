/* Fused attention for tile registers with bfloat16 products (AMX): x86-64 servers since 2023 (Sapphire Rapids). */
#include "cpu/kernels.h"

#include <math.h>
#include <string.h>

#define LANES 16
#include "cpu/kernels_math.inc"
#include "cpu/kernels_vector.inc"

#include "cpu/kernels_gelu.inc"

#include "cpu/fused_cells_bf16.inc"

#define PSK_AMX
#include "cpu/fused_attention.inc"

const psk_fused_kernels psk_fused_amx = FUSED_KERNELS;
