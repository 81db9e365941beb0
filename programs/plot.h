/* Pictures by gnuplot: lines over a common axis, in colours that colour-blind people tell apart. */
#ifndef PLOT_H
#define PLOT_H

#include "command.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct plot_series {
    char label[128];
    double *x, *y;
    size_t count, capacity;
    bool points; /* marks beside the line: few measured points */
    int colour;  /* from 0: number of the colour, and past the last of the colours with its dashes and marks; series
                  * of the same number belong together */
    bool dashed; /* one of the two of a number */
} plot_series;

typedef struct plot_axes {
    const char *title, *x_label, *y_label;
    bool x_lengths;   /* x: powers of two, written 512, 1k, 2k */
    bool log_lengths; /* the same, and y: powers of ten */
} plot_axes;

bool plot_add(plot_series *series, double x, double y); /* false: out of memory */
void plot_release(plot_series *series);

/* Draws `path`, a PNG, which is there whole or as it was before (where its folder takes no file beside it: or cut);
 * series without points are left out. False with an error said: gnuplot absent, its own complaint, a full disk. */
bool plot_draw(const char *command, const char *path, const plot_axes *axes, const plot_series *series, size_t count);

#endif
