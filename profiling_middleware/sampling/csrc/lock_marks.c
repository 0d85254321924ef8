#include "lock_marks.h"

#define MOST_READINGS 100

void lock_mark_clear(struct lock_mark *mark)
{
    atomic_store(&mark->ended_ns, 0);
    atomic_store(&mark->since_ns, 0);
    atomic_store(&mark->changes, 0);
    mark->depth = 0;
    mark->at = (struct known_at){0, 0};
}

void lock_mark_begin(struct lock_mark *mark, uint64_t now, struct known_at at, struct label_ref label)
{
    if (mark->depth++ > 0)
        return;
    mark->at = at;
    mark->label = label;
    atomic_store_explicit(&mark->since_ns, now, memory_order_release);
}

void lock_mark_end(struct lock_mark *mark, uint64_t now)
{
    if (mark->depth == 0 || --mark->depth > 0)
        return;
    uint64_t since = atomic_load(&mark->since_ns);
    atomic_fetch_add(&mark->changes, 1);
    atomic_store(&mark->since_ns, 0);
    atomic_fetch_add(&mark->ended_ns, now - since);
    atomic_fetch_add(&mark->changes, 1);
}

bool lock_mark_waits(const struct lock_mark *mark) { return atomic_load(&mark->since_ns) != 0; }

bool lock_mark_place(const struct lock_mark *mark, struct known_at *at, struct label_ref *label)
{
    uint64_t since = atomic_load_explicit(&mark->since_ns, memory_order_acquire);
    *at = mark->at;
    *label = mark->label;
    atomic_thread_fence(memory_order_acquire);
    /* No two waits of a thread begin at the same time. */
    return since != 0 && atomic_load_explicit(&mark->since_ns, memory_order_relaxed) == since;
}

uint64_t lock_mark_waited(const struct lock_mark *mark, uint64_t when)
{
    uint64_t since = 0, waited = 0;
    uint32_t before = 1, after = 0;
    /* Whoever changes them may be put aside in between, and comes back in a moment or ends with its thread. */
    for (int attempt = 0; attempt < MOST_READINGS && (before != after || (before & 1u)); attempt++) {
        before = atomic_load(&mark->changes);
        since = atomic_load(&mark->since_ns);
        waited = atomic_load(&mark->ended_ns);
        after = atomic_load(&mark->changes);
    }
    return waited + (since && when > since ? when - since : 0);
}
