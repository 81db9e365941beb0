/* The kernels for AVX-512 F, BW, VL, DQ: x86-64 servers since 2017 (Skylake-SP), 2022 (Zen 4). */
#define PSK_ISA avx512
#define LANES   16
#include "cpu/kernels.inc"
