/* The few formulas that more than one file of the reference needs, in double. */
#ifndef PSK_REF_MATH_H
#define PSK_REF_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* sqrt(2 / pi), and the cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel 2016). */
#define PSK_REF_GELU_SCALE 0.79788456080286535588
#define PSK_REF_GELU_CUBIC 0.044715

/* gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
static inline double psk_ref_gelu(double x) {
    return 0.5 * x * (1 + tanh(PSK_REF_GELU_SCALE * (x + PSK_REF_GELU_CUBIC * x * x * x)));
}

/* gelu'(x) */
static inline double psk_ref_gelu_slope(double x) {
    const double t = tanh(PSK_REF_GELU_SCALE * (x + PSK_REF_GELU_CUBIC * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * PSK_REF_GELU_SCALE * (1 + 3 * PSK_REF_GELU_CUBIC * x * x);
}

/* x^p by p multiplications, p >= 0. */
static inline double psk_ref_power(double x, int64_t p) {
    double y = 1;
    for (int64_t i = 0; i < p; i++)
        y *= x;
    return y;
}

/* <x, y> of n numbers. */
static inline double psk_ref_dot(int64_t n, const double *x, const double *y) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

#endif
