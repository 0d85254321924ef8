#include "ring.h"

#include <string.h>
#include <sys/mman.h>

#define RING_BYTES (1u << 20) /* 1,200 stacks of 50 frames: more than comes between two drains */
#define ALIGNMENT 16u
#define PADDING 0x80000000u /* a stretch at the ring's end that was too short for a record */

static unsigned char *ring;
static _Atomic uint64_t head; /* where the next record goes; grows for ever */
static _Atomic uint64_t tail; /* what the reader has not given back */

bool ring_init(void)
{
    if (ring == NULL) {
        /* Straight from the kernel: only what is used becomes resident, and it begins as zeros. */
        void *memory = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return false;
        ring = memory;
    }
    return true;
}

void ring_abandon(void)
{
    if (ring_empty())
        return; /* what was given back is zeros already */
    memset(ring, 0, RING_BYTES);
    atomic_store(&head, 0);
    atomic_store(&tail, 0);
}

static uint32_t record_size(uint32_t depth)
{
    size_t size = sizeof(struct record) + depth * sizeof(struct place);
    return (uint32_t)((size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1));
}

struct record *ring_reserve(enum record_kind kind, uint32_t depth)
{
    uint32_t size = record_size(depth), place, padding;
    uint64_t at = atomic_load_explicit(&head, memory_order_relaxed);
    do {
        place = (uint32_t)(at % RING_BYTES);
        padding = place + size > RING_BYTES ? RING_BYTES - place : 0;
        if (at + padding + size - atomic_load_explicit(&tail, memory_order_acquire) > RING_BYTES)
            return NULL;
        /* A handler may interrupt another thread's reservation, never its own: the signal is blocked in its handler. */
    } while (!atomic_compare_exchange_weak(&head, &at, at + padding + size));
    if (padding) {
        atomic_store_explicit(&((struct record *)(ring + place))->ready, padding | PADDING, memory_order_release);
        place = 0;
    }
    struct record *record = (struct record *)(ring + place);
    record->kind = (uint16_t)kind;
    record->depth = (uint16_t)depth;
    return record;
}

void ring_commit(struct record *record)
{
    atomic_store_explicit(&record->ready, record_size(record->depth), memory_order_release);
}

static void give_back(struct record *record, uint32_t size)
{
    /* Zeros, because whatever lies where a later record begins must not look whole. */
    memset((void *)record, 0, size);
    atomic_fetch_add_explicit(&tail, size, memory_order_release);
}

struct record *ring_peek(void)
{
    for (;;) {
        uint64_t at = atomic_load_explicit(&tail, memory_order_relaxed);
        if (at == atomic_load_explicit(&head, memory_order_acquire))
            return NULL;
        struct record *record = (struct record *)(ring + at % RING_BYTES);
        uint32_t ready = atomic_load_explicit(&record->ready, memory_order_acquire);
        if (!(ready & PADDING))
            return ready ? record : NULL;
        give_back(record, ready & ~PADDING);
    }
}

void ring_release(struct record *record) { give_back(record, record_size(record->depth)); }

bool ring_empty(void) { return atomic_load(&head) == atomic_load(&tail); }
