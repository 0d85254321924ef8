#include "recent.h"

#include <string.h>

#define SLOTS 256u /* a power of two */
#define SLOT_BITS 8
#define MOST_PLACES 62u /* deeper ones are found by their frames */

struct recent {
    uint64_t hash;
    uint32_t age; /* valid as long as it is the present one */
    uint16_t depth;
    uint32_t stack;
    struct place places[MOST_PLACES];
};
static struct recent recents[SLOTS];
static uint32_t present = 1;

uint64_t recent_hash(const struct place *places, uint32_t depth)
{
    uint64_t hash = depth;
    for (uint32_t number = 0; number < depth; number++) {
        hash ^= places[number].code ^ (uint64_t)(uint32_t)places[number].offset << 40;
        hash *= 0x9E3779B97F4A7C15ull; /* Fibonacci hashing: Knuth, The Art of Computer Programming 3, 6.4 */
        hash ^= hash >> 32;
    }
    return hash;
}

static struct recent *slot_of(uint64_t hash) { return &recents[hash * 0x9E3779B97F4A7C15ull >> (64 - SLOT_BITS)]; }

bool recent_find(uint64_t hash, const struct place *places, uint32_t depth, uint32_t *stack)
{
    const struct recent *recent = slot_of(hash);
    if (recent->age != present || recent->hash != hash || recent->depth != depth)
        return false;
    for (uint32_t number = 0; number < depth; number++)
        if (recent->places[number].code != places[number].code || recent->places[number].offset != places[number].offset)
            return false;
    *stack = recent->stack;
    return true;
}

void recent_keep(uint64_t hash, const struct place *places, uint32_t depth, uint32_t stack)
{
    struct recent *recent = slot_of(hash);
    if (depth > MOST_PLACES)
        return;
    recent->hash = hash;
    recent->age = present;
    recent->depth = (uint16_t)depth;
    recent->stack = stack;
    memcpy(recent->places, places, depth * sizeof *places);
}

void recent_forget(void)
{
    if (++present == 0) {
        memset(recents, 0, sizeof recents); /* after four billion times, so that none is taken for a new one */
        present = 1;
    }
}
