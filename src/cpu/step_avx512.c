/* The kernels of decoding for AVX-512 F, BW, VL, DQ. */
#define PSK_ISA avx512
#define LANES   16
#include "cpu/step.inc"
