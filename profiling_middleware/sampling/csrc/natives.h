/* Threads without Python, and what they have used: should one come to Python, that much is not its first sample's. */
#ifndef PROFILING_NATIVES_H
#define PROFILING_NATIVES_H

#include "common.h"

#include <sys/types.h>

/* For one caller at a time: with threads_lock(). */
void natives_note(pid_t tid, uint64_t cpu_ns);
void natives_forget(void);
/* What the thread had used when it was noted; 0 for one that was not. `clock_ns` is its CPU clock now. */
uint64_t natives_used(pid_t tid, uint64_t clock_ns);

#endif
