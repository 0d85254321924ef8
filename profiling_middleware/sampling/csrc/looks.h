/* What is seen of all threads from outside, and what of it is handed out. All with threads_lock() held. */
#ifndef PROFILING_LOOKS_H
#define PROFILING_LOOKS_H

#include "common.h"

struct looks_counts {
    uint64_t looks, torn, no_room, unread_states;
};
extern struct looks_counts looks_counts;

/* One look is due every `interval_ns`, none when that is 0. With `charges` looks charge CPU time to what they see running, with
 * `why` they ask why who waits does so. `anew`: nothing is known of where the threads are. */
void looks_set(uint64_t interval_ns, bool charges, bool why, bool anew);
uint64_t looks_interval(void);
/* Looks at every thread that has run since the last look. */
void looks_look(uint64_t now_ns);
/* Forgets threads that have ended, handing out what they have waited. */
void looks_forget_ended(void);
/* Hands out what each thread has spent where it was seen last. */
void looks_settle(uint64_t now_ns);
/* In a forked child: nothing has been done. */
void looks_abandon(void);

#endif
