/* The steps of asyncio's tasks, observed: which task, from when to when, what woke it, and which futures it resolves.
 *
 * The functions are replaced through which tasks of `_asyncio` go on: so the steps of all tasks there are are observed,
 * also of those made before, on any loop, and no task is another thing than it was. */
#ifndef PROFILING_STEPS_H
#define PROFILING_STEPS_H

#include "common.h"

/* Whom to tell, in the thread that does it; each may be None. See _native.pyi. */
struct step_observer {
    PyObject *stepped, *created, *resolved;
    long long threshold_ns;
};

/* Begins to observe, or goes on with another observer. False, without an exception, when `_asyncio` is not loaded or
 * not as it is known: then nothing has been changed. With the GIL, as all that follows. */
bool steps_observe(const struct step_observer *observer);
/* Puts all functions back and tells nobody any more. Who is in one of them comes back through it. */
void steps_leave(void);
/* How often an observer has raised. */
unsigned long long steps_failures(void);

#endif
