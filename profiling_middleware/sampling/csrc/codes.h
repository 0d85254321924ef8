/* Code objects: which are known to be alive, and what is called when one is about to be freed. */
#ifndef PROFILING_CODES_H
#define PROFILING_CODES_H

#include "common.h"

/* Begins to hear of freed code objects; `before_free` runs with the GIL, before the memory goes. False, with an exception
 * set, when that cannot be had. Once a process: it is never taken back. */
bool codes_init(void (*before_free)(uintptr_t code));

/* How many code objects have been freed so far. What was read when it was one number and is used when it is another may name
 * one of them. */
uint64_t codes_freed(void);
/* Whether `address` was freed since that was `since`, or may have been: only so many are remembered. With the GIL. */
bool code_freed_since(uintptr_t address, uint64_t since);

/* Whether a code object is known to be at this address. For anybody. */
bool code_is_known(uintptr_t address);
/* Whether a code object is at this address now. For frames of the calling thread, or with the GIL. */
bool code_is_alive(uintptr_t address);
/* Remembers that there is one, which makes the next question cheap. With the GIL. */
void code_remember(uintptr_t address);
void code_forget_all(void);

#endif
