/* Records become samples: resolved while the code objects in them live, handed to Python when it asks. */
#ifndef PROFILING_DRAIN_H
#define PROFILING_DRAIN_H

#include "common.h"

struct drain_counts {
    uint64_t lost;    /* stacks that named a code object which is gone */
    uint64_t dropped; /* samples that came when there was no room for them, or for what is new in them */
    uint64_t clears;  /* how often the tables were full and began anew */
};
extern struct drain_counts drain_counts;

/* Resolves what is in the ring. With the GIL; runs no Python and frees nothing. */
void drain_ring(uintptr_t unused);
/* The same before a code object is freed, whose address may mean another one afterwards. */
void drain_before_code_goes(uintptr_t code);

/* A new tuple: samples, stacks and frames that are new since the last call, whether all numbers began anew before that, and
 * what was waited for locks. See _native.pyi. */
PyObject *drain_take(void);
/* Forgets all that is pending and all names; numbers begin anew. With the GIL. */
void drain_clear(void);

#endif
