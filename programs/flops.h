/* Useful floating-point operations of attention: what the mathematics needs, whatever an implementation spends. */
#ifndef FLOPS_H
#define FLOPS_H

#include "polysketch.h"

typedef struct attention_flops {
    double forward, backward;
} attention_flops;

/* Of one causal attention with its sketches; d = h. */
attention_flops flops_of_attention(const psk_attention_config *config, const psk_attention_shape *shape);

/* Of one training step of B x N tokens: dense layers, head and attention. */
double flops_of_step(const psk_model_config *config, int64_t B, int64_t N);

#endif
