/* What a thread tells of its waits for locks that are measured: looks at it take off what is counted already. */
#ifndef PROFILING_LOCK_MARKS_H
#define PROFILING_LOCK_MARKS_H

#include "common.h"

/* Written by the thread itself, with the GIL; read by whoever looks at it, without. */
struct lock_mark {
    _Atomic uint64_t ended_ns; /* of waits that are over */
    _Atomic uint64_t since_ns; /* when the present one began; 0 without one */
    struct known_at at;        /* where it is, without a stack if nobody has asked, and for whom */
    struct label_ref label;
    _Atomic uint32_t changes; /* odd while the two times do not agree */
    uint32_t depth;           /* of waits within waits: signal handlers run in them */
};

void lock_mark_clear(struct lock_mark *mark);
/* A wait begins, or has ended. */
void lock_mark_begin(struct lock_mark *mark, uint64_t now_ns, struct known_at at, struct label_ref label);
void lock_mark_end(struct lock_mark *mark, uint64_t now_ns);
/* Whether there is a wait now. */
bool lock_mark_waits(const struct lock_mark *mark);
/* Where it waits, and for whom, if it does so now. */
bool lock_mark_place(const struct lock_mark *mark, struct known_at *at, struct label_ref *label);
/* How long it has waited for locks up to `when_ns`, which is not before its last look. */
uint64_t lock_mark_waited(const struct lock_mark *mark, uint64_t when_ns);

#endif
