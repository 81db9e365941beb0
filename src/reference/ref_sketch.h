/* Sketches and performer features by their formulas, row by row, in double, with their gradients. The oracle of the
 * tests of src/attention and src/model, with which it shares no code. Only tests call it.
 *
 * In all of them x is rows x h and the result rows x r; gradients of weights are accumulated (+=), dx is written (=).
 * Those that return a status need scratch memory; error: MEMORY. */
#ifndef PSK_REF_SKETCH_H
#define PSK_REF_SKETCH_H

#include "base/status.h"

/* s(x) = S(x, p/2),  S(x,1) = x,  S(x,t) = sqrt(1/r) [(S1(x,t/2) G1) * (S2(x,t/2) G2)]   (paper, Algorithm 1)
 * g: p - 2 matrices, depth first: those of S1, those of S2, G1, G2; h x r where they meet x, r x r above. p = 2: r = h.
 */
typedef struct psk_ref_random_sketch {
    int64_t h, r, p;
    const double *const *g;
} psk_ref_random_sketch;

psk_status psk_ref_random_sketch_forward(const psk_ref_random_sketch *sketch, int64_t rows, const double *x,
                                         double *out);
psk_status psk_ref_random_sketch_backward(const psk_ref_random_sketch *sketch, int64_t rows, const double *x,
                                          const double *dout, double *dx);

#define PSK_REF_LEVELS 2

/* One level of a learned network: down gelu(up LN(x)), LN with eps 1e-5. in: h on level 0, r on level 1 */
typedef struct psk_ref_level {
    double *norm_weight, *norm_bias; /* [in] */
    double *up;                      /* [hidden, in] */
    double *down;                    /* [r, hidden] */
} psk_ref_level;

/* s(x) = sqrt(r) tanh(a(x) * b(x) / sqrt(r)), a = net[0], b = net[1]   (paper, section 2.3) */
typedef struct psk_ref_learned_sketch {
    int64_t h, r, hidden;
    psk_ref_level net[2][PSK_REF_LEVELS];
} psk_ref_learned_sketch;

psk_status psk_ref_learned_sketch_forward(const psk_ref_learned_sketch *sketch, int64_t rows, const double *x,
                                          double *out);
/* gradients: the same sizes, each weight's place filled by its gradient */
psk_status psk_ref_learned_sketch_backward(const psk_ref_learned_sketch *sketch, int64_t rows, const double *x,
                                           const double *dout, double *dx, const psk_ref_learned_sketch *gradients);

/* s(x) = (Wa x) * (Wb x) / sqrt(r).   weight[0] = Wa, weight[1] = Wb: [r, h] */
typedef struct psk_ref_linear_sketch {
    int64_t h, r;
    double *weight[2];
} psk_ref_linear_sketch;

void psk_ref_linear_sketch_forward(const psk_ref_linear_sketch *sketch, int64_t rows, const double *x, double *out);
void psk_ref_linear_sketch_backward(const psk_ref_linear_sketch *sketch, int64_t rows, const double *x,
                                    const double *dout, double *dx, const psk_ref_linear_sketch *gradients);

/* f_w(x) = (exp(<x', w> - |x'|^2 / 2) + 1e-6) / sqrt(m), x' = x / h^(1/4)   (Choromanski et al. 2021).   projection:
 * [m, h] */
typedef struct psk_ref_performer {
    int64_t h, m;
    const double *projection;
} psk_ref_performer;

void psk_ref_performer_forward(const psk_ref_performer *performer, int64_t rows, const double *x, double *f);
void psk_ref_performer_backward(const psk_ref_performer *performer, int64_t rows, const double *x, const double *df,
                                double *dx);

#endif
