/* Where CPython 3.11, 3.12 and 3.13 keep what is read here. The only file that names the interpreter's own structures;
 * the self-test at load (sampling/selftest.py) decides whether what it says is true of the interpreter it meets. */
#ifndef PROFILING_LAYOUT_H
#define PROFILING_LAYOUT_H

#include "common.h"

#include <internal/pycore_code.h>
#include <internal/pycore_context.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_hamt.h>
#include <internal/pycore_interp.h>

typedef _PyInterpreterFrame Frame;

/* The part of a frame before its local variables. */
#define FRAME_SIZE offsetof(Frame, localsplus)
/* The part of a thread state that is read from outside. */
#define TSTATE_SIZE (offsetof(PyThreadState, datastack_limit) + sizeof(void *))
#define CHUNK_HEADER offsetof(_PyStackChunk, data)

/* So that whoever may read what is no frame any more may do so with these, see UNCHECKED. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if PY_VERSION_HEX < 0x030D0000

ALWAYS_INLINE uintptr_t frame_code(const Frame *frame) { return (uintptr_t)frame->f_code; }
/* The instruction before the next one: what f_lasti is made of. */
ALWAYS_INLINE uintptr_t frame_instruction(const Frame *frame) { return (uintptr_t)frame->prev_instr; }
/* Each entry into the interpreter has a C frame, which points to the topmost Python frame and to the C frame below. For a moment
 * the new one is in its place and points to whatever lay there before. */
#define HAS_C_FRAMES 1
struct top {
    uintptr_t frame;
    uintptr_t c_frame_below;
};
_Static_assert(offsetof(_PyCFrame, previous) == offsetof(_PyCFrame, current_frame) + sizeof(void *), "read as one");
/* Where the struct top lies of the thread whose state, at `address`, is copied in `state`. */
static inline uintptr_t top_pointer(uintptr_t address, const PyThreadState *state)
{
    (void)address;
    return (uintptr_t)state->cframe + offsetof(_PyCFrame, current_frame);
}
static inline uintptr_t top_pointer_below(const struct top *top)
{
    return top->c_frame_below ? top->c_frame_below + offsetof(_PyCFrame, current_frame) : 0;
}

#else

ALWAYS_INLINE uintptr_t frame_code(const Frame *frame) { return (uintptr_t)frame->f_executable; }
ALWAYS_INLINE uintptr_t frame_instruction(const Frame *frame) { return (uintptr_t)frame->instr_ptr; }
#define HAS_C_FRAMES 0
struct top {
    uintptr_t frame;
};
static inline uintptr_t top_pointer(uintptr_t address, const PyThreadState *state)
{
    (void)state;
    return address + offsetof(PyThreadState, current_frame);
}
static inline uintptr_t top_pointer_below(const struct top *top)
{
    (void)top;
    return 0;
}

#endif

/* Since 3.12 each entry into the interpreter leaves a frame on the C stack that is nobody's. */
ALWAYS_INLINE bool frame_is_nobodys(const Frame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000
    return frame->owner == FRAME_OWNED_BY_CSTACK;
#else
    (void)frame;
    return false;
#endif
}

/* Whether the interpreter was entered with this frame: the one before it is the topmost one of the C frame below. */
ALWAYS_INLINE bool frame_is_entry(const Frame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000
    return frame->owner == FRAME_OWNED_BY_CSTACK;
#else
    return frame->is_entry;
#endif
}

/* Whether the interpreter works in this frame: then it alone knows where the frame's stack ends. It says so in the frame when it
 * leaves it for another one that it does not enter anew, or for good. */
static inline bool frame_is_at_work(const Frame *frame) { return frame->stacktop < 0; }

/* As `f_lasti` says it. */
static inline int32_t frame_lasti(const Frame *frame)
{
    int last = _PyInterpreterFrame_LASTI((Frame *)frame);
    return last < 0 ? -1 : last * (int)sizeof(_Py_CODEUNIT);
}

/* What a frame object of Python's is one of. */
static inline const Frame *frame_of(PyObject *object) { return ((PyFrameObject *)object)->f_frame; }

static inline bool frame_is_suspendable(const Frame *frame)
{
    return ((const PyCodeObject *)frame_code(frame))->co_flags &
           (CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE);
}

/* NULL when it runs, or is over. */
static inline const Frame *suspended_frame(const PyGenObject *generator)
{
    return generator->gi_frame_state < FRAME_EXECUTING ? (const Frame *)generator->gi_iframe : NULL;
}

static inline int32_t instruction_offset(uintptr_t code, uintptr_t instruction)
{
    intptr_t offset = (intptr_t)(instruction - (code + offsetof(PyCodeObject, co_code_adaptive)));
    /* Just before the first one when a frame has just been made; anything else comes from a frame being made. */
    return offset < 0 || offset > INT32_MAX ? 0 : (int32_t)offset;
}

/* False once the stack is full: then its last frame says so. */
static inline bool stack_push(struct raw_stack *stack, uintptr_t code, uintptr_t instruction)
{
    if (stack->depth == MAX_DEPTH) {
        stack->places[stack->depth++] = (struct place){SPECIAL_TRUNCATED, 0};
        return false;
    }
    stack->places[stack->depth++] = (struct place){code, instruction_offset(code, instruction)};
    return true;
}

/* Counts every thread state ever made in an interpreter; the newest is the head of the list. */
static inline uint64_t threads_made(const PyInterpreterState *interpreter)
{
    return *(const volatile uint64_t *)&interpreter->threads.next_unique_id;
}
static inline uintptr_t newest_thread(const PyInterpreterState *interpreter)
{
    return (uintptr_t)*(PyThreadState *const volatile *)&interpreter->threads.head;
}

#endif
