/* The locks that somebody waits for now, and for how long all of their waiters together have waited. */
#ifndef PROFILING_WAITERS_H
#define PROFILING_WAITERS_H

#include "contention.h"

/* All with the GIL, which orders what is kept here. */

/* Somebody begins to wait for `lock`, at `at`; it keeps the lock alive until the end of its wait. */
void waiters_begin(PyObject *lock, struct known_at at, uint64_t now_ns);
/* Its wait is over. Returns how long ago that release was that ended it, 0 when none has. */
uint64_t waiters_end(PyObject *lock, uint64_t began_ns, uint64_t now_ns, struct release *release);
/* Nanoseconds that all who wait or waited for `lock` have waited since this was asked last, and where one of them is; 0 when nobody
 * has. */
uint64_t waiters_take(PyObject *lock, uint64_t now_ns, struct known_at *at);
/* Keeps the release for which that was asked: who waits now goes on because of it. */
void waiters_released(PyObject *lock, const struct release *release);
/* Nobody waits for anything. */
void waiters_clear(void);

#endif
