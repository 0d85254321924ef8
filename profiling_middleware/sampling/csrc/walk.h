/* From a thread state to its stack. */
#ifndef PROFILING_WALK_H
#define PROFILING_WALK_H

#include "common.h"

enum walked {
    WALK_DONE,
    WALK_TORN, /* a frame was just being made, or the thread went on while it was read */
};

/* The calling thread's own stack, from any point at which it was interrupted. Allocates nothing and takes no lock. */
enum walked walk_own(const PyThreadState *state, struct raw_stack *stack);

/* Another thread's stack and whom it works for, read through the kernel while that thread runs or waits. For one caller at
 * a time. */
enum walked walk_other(uintptr_t state, struct raw_stack *stack, struct label_ref *label);

#endif
