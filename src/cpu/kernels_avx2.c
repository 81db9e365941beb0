/* The kernels for AVX2 and FMA: x86-64 since 2013 (Haswell), 2015 (Excavator). */
#define PSK_ISA avx2
#define LANES   8
#include "cpu/kernels.inc"
