/* The interpreter's own locks, observed: who waits for one, for how long, and whose release ends it.
 *
 * The functions in the method tables of `_thread.lock` and `_thread.RLock` are replaced: so every lock there is is observed,
 * also those made before, through every way there is to it, and no lock is another thing than it was. */
#ifndef PROFILING_LOCKS_H
#define PROFILING_LOCKS_H

#include "common.h"

/* Begins to observe. False, without an exception, when the locks of this interpreter are not as they are known: then nothing has
 * been changed. With the GIL, as all that follows. */
bool locks_observe(void);
/* Puts all methods back. Who waits in one of them comes back through it. */
void locks_leave(void);
bool locks_observed(void);
/* In a forked child: nobody waits there. */
void locks_abandon(void);

#endif
