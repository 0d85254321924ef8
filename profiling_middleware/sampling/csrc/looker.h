/* A thread of its own, without Python and without the GIL: finds new threads and, when asked, looks at all of them. */
#ifndef PROFILING_LOOKER_H
#define PROFILING_LOOKER_H

#include "common.h"

#define LOOKER_SIGNAL 0 /* no thread's timer carries this */

/* Starts the thread. It looks every `interval_ns` (jittered); 0: it only finds threads. With `charges` it also charges CPU
 * time to what it sees running, with `why` it asks why threads wait. With `signal`, SIGPROF is ours and the process's CPU clock may wake it. False when the thread
 * cannot be started. */
bool looker_start(uint64_t interval_ns, bool charges, bool why, bool signal);
/* Changes that while it runs. Both with threads_lock() held. */
void looker_set(uint64_t interval_ns, bool charges, bool why);
/* Ends the thread and waits for its end. Without the GIL, and without threads_lock(). */
void looker_stop(void);
/* The same before a fork, and the other way round after it if it ran before. */
void looker_pause(void);
void looker_resume(void);
bool looker_running(void);
/* CPU time of that thread, and of those before it in this process. */
uint64_t looker_used_ns(void);
/* The system's number of that thread, 0 before it runs. */
int looker_tid(void);
/* Lets it look for new threads. Safe in a handler. */
void looker_nudge(void);
/* In a forked child: there is no such thread. */
void looker_abandon(void);

#endif
