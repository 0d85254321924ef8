/* From a thread state to its stack. */
#ifndef PROFILING_WALK_H
#define PROFILING_WALK_H

#include "common.h"

#include <sys/types.h>

enum walked {
    WALK_DONE,
    WALK_TORN, /* a frame was just being made, or the thread went on while it was read */
    WALK_RUNS, /* the thread runs, and only one that does not was wanted */
};

/* The calling thread's own stack, from any point at which it was interrupted. Allocates nothing and takes no lock. */
enum walked walk_own(const PyThreadState *state, struct raw_stack *stack);

/* The calling thread's own stack, in a function that Python has called: nothing of it is half made. */
void walk_here(const PyThreadState *state, struct raw_stack *stack);

/* Another thread's stack and whom it works for, read through the kernel. It is exact where the thread does not run; where it
 * does, which is only looked at with `also_running`, it is one that can have been there. For one caller at a time. */
enum walked walk_other(pid_t tid, uintptr_t state, bool also_running, struct raw_stack *stack, struct label_ref *label);

#endif
