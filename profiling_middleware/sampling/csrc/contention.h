/* Sums of what threads waited for locks, on the stacks that waited, and on the stacks whose release ended the waiting. */
#ifndef PROFILING_CONTENTION_H
#define PROFILING_CONTENTION_H

#include "common.h"

struct contention_counts {
    uint64_t waits, releases; /* that were recorded */
    uint64_t dropped;         /* for which there was no room: they are in the sum of those without a stack */
    uint64_t own_ns;          /* time of recording them */
};
extern struct contention_counts contention_counts;

/* Waits shorter than `block_rate_ns` are recorded with the probability that their length has to it, releases one in
 * `mutex_fraction`; what is recorded counts for those that are not, so sums are right on average. 0: none. As
 * runtime.SetBlockProfileRate and SetMutexProfileFraction of Go. With the GIL, as all that follows. */
void contention_set_rates(uint64_t block_rate_ns, uint64_t mutex_fraction);

/* The calling thread's stack, and whom it works for; kept in the caller until its wait is over. */
struct waiter {
    struct known_at at;
    uint32_t thread; /* its key, 0 when it is not known */
    struct label_ref label;
};
void contention_here(struct waiter *waiter);
/* The number that its stack has now, while it still waits there. */
uint32_t contention_stack(const struct waiter *waiter);
/* The calling thread has waited for `waited_ns` where it began to, at `waiter`. */
void contention_waited(const struct waiter *waiter, uint64_t waited_ns);

/* A release that ended waits; what those take that it ended until they go on comes on top. */
struct release {
    struct known_at at;
    uint32_t thread; /* its key, also when it is not recorded; 0 when it is not known */
    uint32_t waiter;
    struct label_ref label;
    uint64_t weight; /* how many it stands for; 0 when it is not recorded */
};
/* What the calling thread releases has made others wait for `waited_ns`, one of them at `at`. */
struct release contention_released(uint64_t waited_ns, struct known_at at);
void contention_released_late(const struct release *release, uint64_t late_ns);

/* What was summed since the last call, the fields of one behind those of the other: whether it is a release, the thread's
 * key, its stack, a waiter's stack (-1: none), contentions, nanoseconds, and the parts of its label or None. NULL with an
 * exception. */
PyObject *contention_take(void);
/* Whether all sums have been taken: the numbers of stacks in them would be another table's. */
bool contention_taken(void);
/* All stacks have new numbers from now on. */
void contention_new_table(void);
/* The number of the present table of stacks. For anybody. */
uint32_t contention_table(void);
/* The number that a stack has now; NO_STACK if it is of a table that is no more. */
uint32_t contention_still(struct known_at at);
/* Forgets what was not taken. */
void contention_clear(void);

#endif
