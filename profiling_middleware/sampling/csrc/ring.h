/* Records on their way from signal handlers and the looking thread (many writers) to whoever drains (one reader). */
#ifndef PROFILING_RING_H
#define PROFILING_RING_H

#include "common.h"

enum record_kind {
    RECORD_CPU = 1, /* the thread used `cpu_ns` and is at this stack */
    RECORD_LOOK,    /* it has waited where it was seen last for `waited_ns`, and since then at this stack for `seen_ns` */
    RECORD_STAY,    /* it has waited where it was seen last for `waited_ns` */
};

struct record {
    _Atomic uint32_t ready; /* the record's size in bytes once it is whole; 0 before */
    uint16_t kind;
    uint16_t depth;
    uint32_t thread;
    uint32_t reason; /* why it waits (reason.h), of a look */
    uint32_t table;  /* that a SPECIAL_KNOWN is of */
    uint64_t time_ns, cpu_ns, waited_ns, seen_ns;
    uint64_t locks_waited_ns, locks_seen_ns; /* how much of these it waited for locks that are measured as such (locks.h) */
    uint64_t codes_freed; /* how many code objects had been freed before the stack was read */
    struct label_ref label;
    struct place places[]; /* `depth` of them */
};

bool ring_init(void);
/* In a forked child: forgets everything, also what a thread that is not there had begun to write. */
void ring_abandon(void);

/* Room for a record of `depth` frames, its kind and depth set; NULL when there is none. Takes no lock. */
struct record *ring_reserve(enum record_kind kind, uint32_t depth);
/* The record is whole: from now on it is the reader's. */
void ring_commit(struct record *record);

/* The oldest whole record, NULL when there is none; the reader gives it back with ring_release. */
struct record *ring_peek(void);
void ring_release(struct record *record);
bool ring_empty(void);

#endif
