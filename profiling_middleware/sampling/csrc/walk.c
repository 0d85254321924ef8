#include "walk.h"
#include "codes.h"
#include "kernel.h"
#include "layout.h"

#include <stdalign.h>

/* A frame just being made points to what lay there before: that is in memory, which is asked, but may have been freed, and given
 * to somebody else since. It is read all the same, and not believed; to AddressSanitizer that would be a mistake. */
#define UNCHECKED __attribute__((no_sanitize("address")))

/* The stretch of the data stack in which the frames of ordinary functions lie. */
struct stretch {
    const _PyStackChunk *chunk;
    uintptr_t begin, end;
};

static bool in_stretch(const struct stretch *stretch, uintptr_t frame)
{
    /* Without a sum: garbage may be so large that it would wrap. */
    return frame >= stretch->begin && frame < stretch->end && stretch->end - frame >= FRAME_SIZE;
}

/* Goes down to the chunk that holds `frame`; stays where it is when none does: then it is a generator's, or on the C
 * stack. */
static bool in_data_stack(struct stretch *stretch, uintptr_t frame)
{
    if (in_stretch(stretch, frame))
        return true;
    const _PyStackChunk *chunk = stretch->chunk ? stretch->chunk->previous : NULL;
    for (; chunk != NULL; chunk = chunk->previous) {
        uintptr_t begin = (uintptr_t)&chunk->data[0];
        struct stretch lower = {chunk, begin, begin + chunk->top * sizeof(PyObject *)};
        if (in_stretch(&lower, frame)) {
            *stretch = lower;
            return true;
        }
    }
    return false;
}

/* Where the topmost entry into the interpreter must have come from; false when the C frame is just being made. */
UNCHECKED static bool find_entry(const struct top *top, uintptr_t *entered_from)
{
    uintptr_t below = top_pointer_below(top);
    *entered_from = 0;
    if (below && !kernel_readable(below, sizeof(struct top)))
        return false;
    if (below)
        *entered_from = ((const struct top *)below)->frame;
    return true;
}

UNCHECKED enum walked walk_own(const PyThreadState *state, struct raw_stack *stack)
{
    struct top top = *(const struct top *)top_pointer((uintptr_t)state, state);
    bool entered = !HAS_C_FRAMES;
    uintptr_t entered_from;
    stack->depth = 0;
    if (!find_entry(&top, &entered_from))
        return WALK_TORN;
    struct stretch stretch = {state->datastack_chunk, 0, (uintptr_t)state->datastack_top};
    if (stretch.chunk != NULL)
        stretch.begin = (uintptr_t)&stretch.chunk->data[0];
    for (uintptr_t at = top.frame; at != 0;) {
        /* The topmost pointer may have been caught between two stores, so none is believed that does not lie where the
         * thread's frames lie, or at least in memory, and does not name a code object. */
        if (at % alignof(Frame) || (!in_data_stack(&stretch, at) && !kernel_readable(at, FRAME_SIZE)))
            return WALK_TORN;
        const Frame *frame = (const Frame *)at;
        if (!entered && frame_is_entry(frame)) {
            if ((uintptr_t)frame->previous != entered_from)
                return WALK_TORN;
            entered = true;
        }
        if (!frame_is_nobodys(frame)) {
            uintptr_t code = frame_code(frame);
            if (!code_is_alive(code))
                return WALK_TORN;
            if (!stack_push(stack, code, frame_instruction(frame)))
                return WALK_DONE;
        }
        at = (uintptr_t)frame->previous;
    }
    return entered || stack->depth == 0 ? WALK_DONE : WALK_TORN;
}

void walk_here(const PyThreadState *state, struct raw_stack *stack)
{
    stack->depth = 0;
    const Frame *frame = (const Frame *)((const struct top *)top_pointer((uintptr_t)state, state))->frame;
    for (; frame != NULL; frame = frame->previous)
        if (!frame_is_nobodys(frame) && !stack_push(stack, frame_code(frame), frame_instruction(frame)))
            return;
}
