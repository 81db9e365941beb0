#define PSK_ISA baseline
#define LANES   4
#include "cpu/step.inc"
