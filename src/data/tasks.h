/* Synthetic tasks: sequences with known answers, each a pure function of (task, part, N, index).
 *
 *   selective copying   x_0 ... x_(N-K-1) | x_(N-K) ... x_(N-1)      K = copies
 *                       noise (0), and K data tokens (1 ... V - 2) at random places, in front of the bar; behind it the
 *                       marker V - 1, then the data tokens but the last, in the order in which they came. The targets
 *                       behind the bar are the K data tokens, so each is predicted with the right ones before it.
 *   induction heads     random tokens (0 ... V - 2), and among them once the marker V - 1; the last token is the marker
 *                       again, and its target is the token that followed the first one.
 *
 * Both as in Gu and Dao, "Mamba" (arXiv 2312.00752, section 4.1), and in the paper's section on synthetic tasks; the
 * answers of copying are fed as a language model sees them. */
#ifndef PSK_TASKS_H
#define PSK_TASKS_H

#include "base/status.h"

/* Train and test examples are of different streams of random numbers. */
typedef enum { PSK_TASK_TRAIN, PSK_TASK_TEST } psk_task_part;

/* ARGUMENT naming the field, or an N with too little room (selective copying: 2 K, induction heads: 3). */
psk_status psk_task_check(const psk_task *task, int64_t N);

/* How often training may halve N: down to task->shortest, and to what the task needs. */
int64_t psk_task_halvings(const psk_task *task, int64_t N);

/* Tokens of the examples of training step number `step`: N, N/2, ... or N halved psk_task_halvings times, one as likely
 * as another. */
int64_t psk_task_step_length(const psk_task *task, int64_t N, int64_t step);

/* Targets a sequence that count: K, or 1. */
int64_t psk_task_answers(const psk_task *task);

/* Examples first ... first + count - 1, 0 <= first < 2^31.   tokens, targets: count x N; targets -1 where nothing is
 * asked. The task is a checked one. */
void psk_task_fill(const psk_task *task, psk_task_part part, int64_t N, int64_t first, int64_t count, int32_t *tokens,
                   int32_t *targets);

#endif
