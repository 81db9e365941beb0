/* The kernels for the architecture's baseline: SSE2 on x86-64, NEON on aarch64. */
#define PSK_ISA baseline
#define LANES   4
#include "cpu/kernels.inc"
