/* metrics.jsonl: one JSON object a line, one line a step. docs/formats.md lists the keys. */
#ifndef PSK_METRICS_H
#define PSK_METRICS_H

#include "base/status.h"

/* Every number that a run records: key in metrics.jsonl, field of psk_train_progress, tag in event files. */
#define PSK_METRICS(X)                                                                                                 \
    X(loss, loss, "train/loss")                                                                                        \
    X(grad_norm, grad_norm, "train/grad_norm")                                                                         \
    X(lr, learning_rate, "train/learning_rate")                                                                        \
    X(tokens_per_second, tokens_per_second, "train/tokens_per_second")                                                 \
    X(valid_loss, valid_loss, "valid/loss")                                                                            \
    X(seconds, seconds, "train/seconds")

typedef struct psk_metrics psk_metrics;

/* Opens for appending after the lines of steps 1 ... progress->step; what follows them (steps that a resumed run will
 * do again, a line cut off by a crash) is removed. The numbers of the last of these lines are read into progress, null
 * as NaN; where there is no such line they stay. progress->step 0: a new file. Errors: FILE; FORMAT for a line that is
 * no JSON object with a step. */
psk_status psk_metrics_open(const char *path, psk_train_progress *progress, psk_metrics **out);

/* Appends the line of progress->step; a number that is not finite is written as null. */
psk_status psk_metrics_write(psk_metrics *metrics, const psk_train_progress *progress);

psk_status psk_metrics_sync(psk_metrics *metrics); /* to the disk: before a checkpoint that counts on these lines */
void psk_metrics_close(psk_metrics *metrics);      /* accepts NULL */

#endif
