/* The kernels of decoding for AVX2 and FMA. */
#define PSK_ISA avx2
#define LANES   8
#include "cpu/step.inc"
