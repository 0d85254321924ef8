/* From addresses to names: which function and line each frame of a record is, and which stack that makes. */
#ifndef PROFILING_TABLE_H
#define PROFILING_TABLE_H

#include "ring.h"

/* A function and a line, once each. */
struct known_frame {
    uint32_t code; /* index of its code */
    int32_t line;
};
struct known_code {
    uintptr_t address; /* 0 once it has been freed */
    PyObject *name, *file; /* strong references; NULL for a special frame */
    int first_line;
    int32_t first_offset; /* of the first instruction of the function's own; before it a frame is not there for Python */
    enum special_frame special;
};

#define NO_STACK UINT32_MAX

bool table_init(void);
/* The number of the stack that a record holds; NO_STACK when one of its code objects is gone (`lost`) or there is no room.
 * With the GIL. */
uint32_t table_stack(const struct record *record, bool *lost);
/* A code object is about to be freed: its address will mean another one. With the GIL. */
void table_code_freed(uintptr_t address);
/* Whether it is so full that it should begin anew. */
bool table_crowded(void);
/* Forgets everything: all numbers begin anew. With the GIL. */
void table_clear(void);

uint32_t table_frame_count(void);
uint32_t table_stack_count(void);
const struct known_frame *table_frame(uint32_t number);
const struct known_code *table_code(uint32_t number);
/* The frames of a stack, leaf first. */
const uint32_t *table_frames_of(uint32_t stack, uint32_t *depth);

#endif
