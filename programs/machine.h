/* The machine that a figure was measured on, and the memory of this process. */
#ifndef MACHINE_H
#define MACHINE_H

#include "command.h"

typedef struct machine_facts {
    char cpu[128];
    int64_t cpus; /* that this process may use */
    int64_t memory_total, memory_free;
    char system[192]; /* name, release and architecture of the operating system */
} machine_facts;

machine_facts machine_read(void);

/* Peak resident set of this process in bytes, since its start or the last reset; reset where the system can. */
int64_t peak_memory(void);
void peak_memory_reset(void);

#endif
