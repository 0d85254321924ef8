/* Long waits for locks, one by one, for whoever wants to know when each of them was. */
#ifndef PROFILING_MOMENTS_H
#define PROFILING_MOMENTS_H

#include "contention.h"

/* Those for which there was no room. With the GIL, as all that follows. */
extern uint64_t moments_dropped;

/* From now on waits of at least `least_ns` are noted; 0: none. */
void moments_set_least(uint64_t least_ns);
/* The calling thread's wait at `waiter` has ended at `now_ns`, by a release of the thread with the key `holder` (0: not known). */
void moments_note(const struct waiter *waiter, uint32_t holder, uint64_t now_ns, uint64_t waited_ns);

/* What was noted since the last call, as a list of tuples: see _native.pyi. NULL with an exception. */
PyObject *moments_take(void);
/* As contention_taken(). */
bool moments_taken(void);
/* Forgets what was not taken. */
void moments_clear(void);

#endif
