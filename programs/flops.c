#include "flops.h"

#include <math.h>
#include <stdbool.h>

static double least(double a, double b) {
    return a < b ? a : b;
}

/* Pairs (query, key) of n causal tokens that are weighted one by one: those inside blocks of b, which are triangles,
 * and with `lag` 1 also those between a block and the one before. */
static double near_pairs(double n, double b, int lag) {
    const double blocks = floor(n / b), tail = n - blocks * b;
    const double own = blocks * b * (b + 1) / 2 + tail * (tail + 1) / 2;
    const double before = blocks > 0 ? (blocks - 1) * b * b + tail * b : 0;
    return own + lag * before;
}

/* A weight <x,y>^p of width w and its [v, 1] of d+1 columns: 2 w + 2 (d+1) a pair. Backward: the weight again 2 w,
 * dw = <dn, [v, 1]> 2 (d+1), dv 2 d, dx and dy 2 w each. */
static attention_flops pair_flops(double pairs, double w, double d) {
    return (attention_flops){pairs * (2 * w + 2 * (d + 1)), pairs * (6 * w + 4 * d + 2)};
}

/* The far part by the state: a query reads m x (d+1) numbers, a key is folded into them, a product of 2 m (d+1) each.
 * Backward takes five: rebuilding Z and db, dv for a key, da and U += for a query. The last blocks' keys are never
 * read.
 */
static attention_flops state_flops(double n, double b, int lag, double m, double d) {
    const double queries = n - least(n, (1 + lag) * b);
    const double keys = b * fmax(0, ceil(n / b) - 1 - lag);
    const double product = 2 * m * (d + 1);
    return (attention_flops){product * (queries + keys), product * (2 * queries + 3 * keys)};
}

/* By the state, or pair by pair where that is less (a short sequence). */
static attention_flops far_flops(double n, double b, int lag, double r, double m, double d) {
    const attention_flops state = state_flops(n, b, lag, m, d);
    const attention_flops pairs = pair_flops(n * (n + 1) / 2 - near_pairs(n, b, lag), r, d);
    return pairs.forward < state.forward ? pairs : state;
}

/* One row of h numbers -> r: the matrix products alone. Backward: dx, and for trained matrices dW, as much each. */
static attention_flops sketch_flops(const psk_attention_config *config, double h) {
    const double r = (double)config->sketch_size, t = (double)config->degree / 2, wide = 8 * r;
    if (config->mechanism == PSK_PERFORMER)
        return (attention_flops){2 * h * r, 2 * h * r};
    double forward = 0;
    switch (config->sketch) {
    case PSK_SKETCH_RANDOM: /* t matrices h x r under the leaves, t - 2 of r x r above them */
        forward = t > 1 ? 2 * (t * h * r + (t - 2) * r * r) : 0;
        return (attention_flops){forward, forward};
    case PSK_SKETCH_RANDOM_HADAMARD: /* the same, each product a transform of n log n additions */
        forward = t > 1 ? t * h * log2(h) + (t - 2) * r * log2(r) : 0;
        return (attention_flops){forward, forward};
    case PSK_SKETCH_LEARNED: /* two networks of two levels, up to 8 r and down to r */
        forward = 2 * (2 * h * wide + 2 * wide * r + 2 * r * wide + 2 * wide * r);
        break;
    case PSK_SKETCH_LEARNED_LINEAR:
        forward = 2 * (2 * h * r);
        break;
    }
    return (attention_flops){forward, 2 * forward};
}

static attention_flops add_scaled(attention_flops sum, double factor, attention_flops part) {
    return (attention_flops){sum.forward + factor * part.forward, sum.backward + factor * part.backward};
}

attention_flops flops_of_attention(const psk_attention_config *config, const psk_attention_shape *shape) {
    const double n = (double)shape->Nk, h = (double)shape->h, d = (double)shape->d, b = (double)config->block_size;
    const double r = (double)config->sketch_size, heads = (double)(shape->B * shape->H);
    const bool sketched = config->mechanism == PSK_POLYSKETCH;
    const int lag = (sketched || config->local_only) && config->local == PSK_LOCAL_WINDOW;
    const double exact = config->local_only ? near_pairs(n, b, lag) : near_pairs(n, n, 0); /* all pairs there are */
    attention_flops one = {0, 0};
    if (config->mechanism == PSK_SOFTMAX) { /* scores and PV; backward: scores again, dP, dV, dQ, dK */
        one = (attention_flops){exact * (2 * h + 2 * d), exact * (6 * h + 4 * d)};
    } else if (config->mechanism == PSK_POLYNOMIAL) {
        one = pair_flops(exact, h, d);
    } else {
        const double m = sketched ? r * (r + 1) / 2 : r; /* the symmetric product, packed */
        const double w = sketched && config->local != PSK_LOCAL_NONE ? h : r;
        one = pair_flops(near_pairs(n, b, lag), w, d);
        one = add_scaled(one, 1, far_flops(n, b, lag, r, m, d));
        if (psk_attention_reads_ab(config, shape->Nk))
            one = add_scaled(one, 2 * n, sketch_flops(config, h)); /* q and k */
    }
    return add_scaled((attention_flops){0, 0}, heads, one);
}

double flops_of_step(const psk_model_config *config, int64_t B, int64_t N) {
    const int64_t H = config->n_head, Hkv = config->n_kv_head ? config->n_kv_head : H, h = config->n_embd / H;
    const double D = (double)config->n_embd, F = floor(8 * D / 3 / 8) * 8;
    const psk_attention_shape shape = {.B = B, .H = H, .Hkv = Hkv, .Nq = N, .Nk = N, .h = h, .d = h};
    const attention_flops attention = flops_of_attention(&config->attention, &shape);
    /* qkv, out, up (2F), down: 2 flops a weight and token, and twice that backward; the head likewise. */
    const double weights = D * (double)((H + 2 * Hkv) * h) + D * D + 3 * D * F;
    const double dense = 6 * (double)(B * N) * ((double)config->n_layer * weights + D * (double)config->vocab_size);
    return dense + (double)config->n_layer * (attention.forward + attention.backward);
}
