/* CPU samples: a timer on each thread's CPU clock, whose signal makes the thread note its own stack. */
#ifndef PROFILING_SAMPLER_H
#define PROFILING_SAMPLER_H

#include "common.h"

struct sampler_counts {
    _Atomic uint64_t samples;
    _Atomic uint64_t own_ns;      /* time spent in handlers, with what delivering a signal costs */
    _Atomic uint64_t torn;        /* stacks that could not be read; their time goes to the thread's next sample */
    _Atomic uint64_t no_room;     /* samples that came when the ring was full; likewise */
};
extern struct sampler_counts sampler_counts;

/* Takes SIGPROF; false when somebody else has it. */
bool sampler_install(void);
/* Gives it back. All timers must have been deleted. */
void sampler_uninstall(void);
/* Whether nobody has SIGPROF, or we do. */
bool sampler_could_install(void);
/* Whether SIGPROF is still ours. */
bool sampler_owns_signal(void);
/* In a forked child: the handler is there, but nothing is to be done. */
void sampler_abandon(void);

#endif
