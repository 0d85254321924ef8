#include "waiters.h"

#include <string.h>

#define SLOTS 8192u /* a power of two, above the number of threads: most wait for one lock at a time */

struct waited {
    PyObject *lock; /* NULL: free */
    uint32_t waiters;
    struct waiting_at at; /* of whoever came last */
    uint64_t until_ns;    /* up to when `waited_ns` counts */
    uint64_t waited_ns;   /* of all waiters together, since it was taken last */
    uint64_t released_ns; /* when that was; 0: never */
    struct release release;
};
static struct waited table[SLOTS];
static uint32_t used;

static uint32_t first_slot(const PyObject *lock)
{
    /* Fibonacci hashing: Knuth, The Art of Computer Programming 3, 6.4. */
    return (uint32_t)(((uintptr_t)lock >> 4) * 0x9E3779B97F4A7C15ull >> 40) & (SLOTS - 1);
}

/* Its entry, or the free one where it would be. */
static struct waited *find(const PyObject *lock)
{
    uint32_t slot = first_slot(lock);
    while (table[slot].lock != lock && table[slot].lock != NULL)
        slot = (slot + 1) & (SLOTS - 1);
    return &table[slot];
}

static void remove_entry(struct waited *entry)
{
    used--;
    entry->lock = NULL;
    /* What lies behind it may have its place before the gap. */
    uint32_t gap = (uint32_t)(entry - table);
    for (uint32_t slot = (gap + 1) & (SLOTS - 1); table[slot].lock != NULL; slot = (slot + 1) & (SLOTS - 1)) {
        uint32_t wanted = first_slot(table[slot].lock);
        if (((slot - wanted) & (SLOTS - 1)) >= ((slot - gap) & (SLOTS - 1))) {
            table[gap] = table[slot];
            table[slot].lock = NULL;
            gap = slot;
        }
    }
}

static void advance(struct waited *entry, uint64_t now)
{
    entry->waited_ns += entry->waiters * (now - entry->until_ns);
    entry->until_ns = now;
}

void waiters_begin(PyObject *lock, struct waiting_at at, uint64_t now)
{
    struct waited *entry = find(lock);
    if (entry->lock == NULL) {
        if (used == SLOTS / 4 * 3)
            return;
        *entry = (struct waited){.lock = lock, .until_ns = now};
        used++;
    }
    advance(entry, now);
    entry->at = at;
    entry->waiters++;
}

uint64_t waiters_end(PyObject *lock, uint64_t began, uint64_t now, struct release *release)
{
    struct waited *entry = find(lock);
    if (entry->lock == NULL)
        return 0;
    advance(entry, now);
    uint64_t late = entry->released_ns > began ? now - entry->released_ns : 0;
    /* That part is the release's, and not that of the one which follows. */
    entry->waited_ns -= late < entry->waited_ns ? late : entry->waited_ns;
    *release = entry->release;
    if (--entry->waiters == 0)
        remove_entry(entry);
    return late;
}

uint64_t waiters_take(PyObject *lock, uint64_t now, struct waiting_at *at)
{
    struct waited *entry = used ? find(lock) : NULL;
    if (entry == NULL || entry->lock == NULL)
        return 0;
    advance(entry, now);
    uint64_t waited = entry->waited_ns;
    entry->waited_ns = 0;
    entry->released_ns = now;
    entry->release.weight = 0;
    *at = entry->at;
    return waited;
}

void waiters_released(PyObject *lock, const struct release *release)
{
    struct waited *entry = find(lock);
    if (entry->lock != NULL)
        entry->release = *release;
}

void waiters_clear(void)
{
    memset(table, 0, sizeof table);
    used = 0;
}
