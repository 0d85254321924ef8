#include "waiters.h"

#include <string.h>

#define SLOTS 8192u /* a power of two, above the number of threads: most wait for one lock at a time */
#define MOST (SLOTS / 4 * 3)

struct waited {
    PyObject *lock;
    uint32_t waiters;
    struct known_at at; /* of whoever came last */
    uint64_t until_ns;    /* up to when `waited_ns` counts */
    uint64_t waited_ns;   /* of all waiters together, since it was taken last */
    uint64_t released_ns; /* when that was; 0: never */
    struct release release;
};
/* Few are in use at a time, and always the same: they stay in the caches, which a table as large as `slots` would not. */
static struct waited table[MOST];
static uint16_t slots[SLOTS]; /* where in `table`, plus 1; 0: free. Found by linear probing. */
static uint16_t given_back[MOST];
static uint32_t ever_used, given_back_count;

static uint32_t first_slot(const PyObject *lock)
{
    /* Fibonacci hashing: Knuth, The Art of Computer Programming 3, 6.4. */
    return (uint32_t)(((uintptr_t)lock >> 4) * 0x9E3779B97F4A7C15ull >> 40) & (SLOTS - 1);
}

static struct waited *entry_of(uint32_t slot) { return slots[slot] ? &table[slots[slot] - 1] : NULL; }

/* Its slot, or the free one where it would be. */
static uint32_t find(const PyObject *lock)
{
    uint32_t slot = first_slot(lock);
    while (slots[slot] && entry_of(slot)->lock != lock)
        slot = (slot + 1) & (SLOTS - 1);
    return slot;
}

static struct waited *add(PyObject *lock, uint32_t slot, uint64_t now)
{
    if (ever_used == MOST && given_back_count == 0)
        return NULL;
    /* Whichever was in use last. */
    uint32_t number = given_back_count ? given_back[--given_back_count] : ever_used++;
    slots[slot] = (uint16_t)(number + 1);
    table[number] = (struct waited){.lock = lock, .until_ns = now};
    return &table[number];
}

static void remove_at(uint32_t gap)
{
    given_back[given_back_count++] = (uint16_t)(slots[gap] - 1);
    slots[gap] = 0;
    /* What lies behind it may have its place before the gap. */
    for (uint32_t slot = (gap + 1) & (SLOTS - 1); slots[slot]; slot = (slot + 1) & (SLOTS - 1)) {
        uint32_t wanted = first_slot(entry_of(slot)->lock);
        if (((slot - wanted) & (SLOTS - 1)) >= ((slot - gap) & (SLOTS - 1))) {
            slots[gap] = slots[slot];
            slots[slot] = 0;
            gap = slot;
        }
    }
}

static void advance(struct waited *entry, uint64_t now)
{
    entry->waited_ns += entry->waiters * (now - entry->until_ns);
    entry->until_ns = now;
}

void waiters_begin(PyObject *lock, struct known_at at, uint64_t now)
{
    uint32_t slot = find(lock);
    struct waited *entry = entry_of(slot);
    if (entry == NULL && (entry = add(lock, slot, now)) == NULL)
        return;
    advance(entry, now);
    entry->at = at;
    entry->waiters++;
}

uint64_t waiters_end(PyObject *lock, uint64_t began, uint64_t now, struct release *release)
{
    uint32_t slot = find(lock);
    struct waited *entry = entry_of(slot);
    if (entry == NULL)
        return 0;
    advance(entry, now);
    uint64_t late = entry->released_ns > began ? now - entry->released_ns : 0;
    /* That part is the release's, and not that of the one which follows. */
    entry->waited_ns -= late < entry->waited_ns ? late : entry->waited_ns;
    *release = entry->release;
    if (--entry->waiters == 0)
        remove_at(slot);
    return late;
}

uint64_t waiters_take(PyObject *lock, uint64_t now, struct known_at *at)
{
    struct waited *entry = ever_used != given_back_count ? entry_of(find(lock)) : NULL;
    if (entry == NULL)
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
    struct waited *entry = entry_of(find(lock));
    if (entry != NULL)
        entry->release = *release;
}

void waiters_clear(void)
{
    memset(slots, 0, sizeof slots);
    ever_used = given_back_count = 0;
}
