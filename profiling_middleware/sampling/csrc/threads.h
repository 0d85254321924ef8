/* The threads of this interpreter that are under observation. */
#ifndef PROFILING_THREADS_H
#define PROFILING_THREADS_H

#include "common.h"
#include "lock_marks.h"

#include <sys/types.h>

#define MAX_THREADS 4096

struct thread {
    _Atomic bool live;
    bool ours;       /* the profiler's own: counted as its cost, and never sampled */
    uint32_t key;    /* never used twice */
    pid_t tid;
    unsigned long ident;
    uintptr_t state;
    uint64_t state_id;
    int timer; /* -1 when it has none */
    _Atomic uint64_t charged_ns; /* CPU time that has been handed out; written by its handler, too */

    uint64_t settled_ns; /* its CPU clock when accounts were settled last */

    /* Of whoever looks at it from outside: its CPU clock then, until when it is known where it was, until when that has been
     * handed out, when it was found running last, what it has run since it was looked at, and CPU time without a stack. */
    uint64_t clock_ns, looked_ns, since_ns, ran_ns, unlooked_ns;
    int64_t carried_ns;
    struct lock_mark lock_mark;
    uint64_t locks_looked_ns, locks_since_ns; /* as looked_ns and since_ns: what of the waits for locks was before */
    bool seen;
    int state_file; /* tells whether it is running; -1 when it is not open */
};

/* `interpreter` is the one whose threads are meant. */
bool threads_init(PyInterpreterState *interpreter);
PyInterpreterState *threads_interpreter(void);

/* What follows is for one caller at a time, if nothing else is said: with threads_lock(). Handlers only use the last two. */
void threads_lock(void);
bool threads_try_lock(void);
void threads_unlock(void);

/* The calling thread's; NULL when it is not known. With the GIL, and without the lock. */
struct thread *threads_own(void);

/* Finds threads that have come since the last time; each gets its timer if sampling is on. False when there may be one
 * that is not ready to be observed: it is to be asked again. */
bool threads_discover(uint64_t now_ns);
/* Whether threads have come since, or were not ready to be observed. Safe in a handler. */
bool threads_changed(void);
/* Puts the calling thread, which has this state, under observation at once: it has only just begun. */
void threads_enlist(const PyThreadState *state, uint64_t now_ns);
void threads_forget(struct thread *thread);
/* Keeps an open file with a thread; false when so many are kept that the application might miss them. */
bool threads_keep_file(struct thread *thread, int file);
/* Forgets all: the next discovery finds them anew. */
void threads_clear(void);
/* Forgets all, without touching timers: in a forked child they do not exist. */
void threads_abandon(void);
/* The next one after `thread` that lives, the first one for NULL, NULL at the end. */
struct thread *threads_next(struct thread *thread);
/* Settles its account: returns what of its CPU time has not been handed out, 0 when it has ended. */
uint64_t threads_settle(struct thread *thread);
/* CPU time of all threads that are or were known, from one settling to the next; begins anew with each call. */
uint64_t threads_take_settled(void);
/* Marks the calling thread as the profiler's own. */
void threads_mark_own(pid_t tid);

/* Who has come since the last call, at most `room` of them; returns how many were written. */
struct newcomer {
    uint32_t key;
    pid_t tid;
    unsigned long ident;
};
unsigned threads_take_new(struct newcomer *into, unsigned room);
/* The keys of those that were forgotten since the last call; likewise. */
unsigned threads_take_ended(uint32_t *into, unsigned room);

/* Timers: each thread gets one that fires after `period_ns` of its CPU time; 0 ends all of them. Returns how many could not
 * have one. */
unsigned threads_set_period(uint64_t period_ns);
/* Room for what its handler sees: a signal stack may be small. */
struct raw_stack *threads_own_stack(const struct thread *thread);
/* What a timer's signal carries, and whose it is; NULL for a thread that is no longer the one it was armed for. */
struct thread *threads_by_signal(uintptr_t value);

#endif
