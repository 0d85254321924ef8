/* Why a thread waits, as far as the system call tells in which it does. */
#ifndef PROFILING_REASON_H
#define PROFILING_REASON_H

#include "common.h"

enum reason {
    REASON_UNKNOWN, /* it runs, or the system does not say */
    REASON_LOCK,
    REASON_GIL,
    REASON_NETWORK,
    REASON_POLL, /* for one of several descriptors */
    REASON_EVENTS, /* of an event loop */
    REASON_ACCEPT,
    REASON_SLEEP,
    REASON_FILE,
    REASON_CHILD, /* a process */
    REASON_OTHER,
    REASON_MEASURED, /* a lock that tells of its waits (locks.h) */
};

/* `text` is what /proc/self/task/TID/syscall says. */
enum reason reason_of(const char *text);

#endif
