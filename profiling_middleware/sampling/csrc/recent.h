/* Stacks that were found lately, by their places: the same few come again and again, and to find one by its frames takes some
 * lines of memory for each of them, which the program's own work has mostly driven out of the caches. */
#ifndef PROFILING_RECENT_H
#define PROFILING_RECENT_H

#include "common.h"

/* All with the GIL. */

uint64_t recent_hash(const struct place *places, uint32_t depth);
/* Whether a stack with these places has been kept; its number. */
bool recent_find(uint64_t hash, const struct place *places, uint32_t depth, uint32_t *stack);
void recent_keep(uint64_t hash, const struct place *places, uint32_t depth, uint32_t stack);
/* Forgets all: a place may mean something else from now on, or a number. */
void recent_forget(void);

#endif
