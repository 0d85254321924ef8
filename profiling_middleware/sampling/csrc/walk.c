#include "walk.h"
#include "codes.h"
#include "kernel.h"
#include "layout.h"

#include <stdalign.h>
#include <string.h>

static bool push(struct raw_stack *stack, uintptr_t code, uintptr_t instruction)
{
    if (stack->depth == MAX_DEPTH) {
        stack->places[stack->depth++] = (struct place){SPECIAL_TRUNCATED, 0};
        return false;
    }
    stack->places[stack->depth++] = (struct place){code, instruction_offset(code, instruction)};
    return true;
}

/* -- one's own --------------------------------------------------------------------------------------------------- */

/* The stretch of the data stack in which the frames of ordinary functions lie. */
struct stretch {
    const _PyStackChunk *chunk;
    uintptr_t begin, end;
};

static bool in_stretch(const struct stretch *stretch, uintptr_t frame)
{
    return frame >= stretch->begin && frame + FRAME_SIZE <= stretch->end;
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

enum walked walk_own(const PyThreadState *state, struct raw_stack *stack)
{
    stack->depth = 0;
    struct stretch stretch = {state->datastack_chunk, 0, (uintptr_t)state->datastack_top};
    if (stretch.chunk != NULL)
        stretch.begin = (uintptr_t)&stretch.chunk->data[0];
    for (uintptr_t at = own_top_frame(state); at != 0;) {
        /* The topmost pointer may have been caught between two stores, so none is believed that does not lie where the
         * thread's frames lie, or at least in memory, and does not name a code object. */
        if (at % alignof(Frame) || (!in_data_stack(&stretch, at) && !kernel_readable(at, FRAME_SIZE)))
            return WALK_TORN;
        const Frame *frame = (const Frame *)at;
        if (!frame_is_entry(frame)) {
            uintptr_t code = frame_code(frame);
            if (!code_is_alive(code))
                return WALK_TORN;
            if (!push(stack, code, frame_instruction(frame)))
                break;
        }
        at = (uintptr_t)frame->previous;
    }
    return WALK_DONE;
}

/* -- another thread's -------------------------------------------------------------------------------------------- */

#define COPY_BYTES (64u * 1024)
#define TRIES 4

/* A copy of the part of one chunk that is in use; the looking thread's alone. */
struct copy {
    uintptr_t chunk, begin, end, previous;
    alignas(16) unsigned char bytes[COPY_BYTES];
};
static struct copy copy;

static bool copy_chunk(uintptr_t chunk, uintptr_t end)
{
    _PyStackChunk header;
    copy.chunk = 0;
    if (!kernel_read(chunk, &header, CHUNK_HEADER))
        return false;
    uintptr_t begin = chunk + CHUNK_HEADER;
    if (end == 0)
        end = begin + header.top * sizeof(PyObject *);
    if (end < begin || end - chunk > header.size || end - begin > COPY_BYTES || !kernel_read(begin, copy.bytes, end - begin))
        return false;
    copy.chunk = chunk;
    copy.begin = begin;
    copy.end = end;
    copy.previous = (uintptr_t)header.previous;
    return true;
}

/* The chunks are only copied as far down as frames are found in them; a frame in none of them is read by itself. */
static bool read_frame(uintptr_t at, Frame *into)
{
    if (at % alignof(Frame))
        return false;
    if (copy.chunk && at >= copy.begin && at + FRAME_SIZE <= copy.end) {
        memcpy(into, copy.bytes + (at - copy.begin), FRAME_SIZE);
        return true;
    }
    uintptr_t lower = copy.chunk ? copy.previous : 0;
    _PyStackChunk header;
    if (lower && kernel_read(lower, &header, CHUNK_HEADER) && at >= lower && at < lower + header.size)
        return copy_chunk(lower, 0) && at + FRAME_SIZE <= copy.end && read_frame(at, into);
    return kernel_read(at, into, FRAME_SIZE);
}

static bool read_top(uintptr_t state, PyThreadState *copied, uintptr_t *top)
{
    if (!kernel_read(state, copied, TSTATE_SIZE))
        return false;
#if TOP_IN_CFRAME
    return kernel_read(tstate_cframe(copied) + offsetof(_PyCFrame, current_frame), top, sizeof *top);
#else
    *top = (uintptr_t)copied->current_frame;
    return true;
#endif
}

static bool walk_once(uintptr_t state, struct raw_stack *stack, uintptr_t *context)
{
    PyThreadState copied;
    Frame frame, first[2], again[2];
    uintptr_t top, top_again, place[2];
    unsigned kept = 0;
    stack->depth = 0;
    if (!read_top(state, &copied, &top))
        return false;
    *context = (uintptr_t)copied.context;
    copy.chunk = 0;
    if (copied.datastack_chunk != NULL && !copy_chunk((uintptr_t)copied.datastack_chunk, (uintptr_t)copied.datastack_top))
        return false;
    for (uintptr_t at = top; at != 0; at = (uintptr_t)frame.previous) {
        if (!read_frame(at, &frame))
            return false;
        if (kept < 2) {
            place[kept] = at;
            memcpy(&first[kept++], &frame, FRAME_SIZE);
        }
        if (frame_is_entry(&frame))
            continue;
        uintptr_t code = frame_code(&frame), type;
        if (!code_is_known(code) && (!kernel_read(code + offsetof(PyObject, ob_type), &type, sizeof type) ||
                                     type != (uintptr_t)&PyCode_Type))
            return false;
        if (!push(stack, code, frame_instruction(&frame)))
            break;
    }
    /* It may have gone on meanwhile: then the two topmost frames are others, or the caller is at another instruction. */
    if (!read_top(state, &copied, &top_again) || top_again != top)
        return false;
    for (unsigned number = 0; number < kept; number++) {
        if (!kernel_read(place[number], &again[number], FRAME_SIZE) ||
            frame_code(&again[number]) != frame_code(&first[number]) ||
            again[number].previous != first[number].previous)
            return false;
        if (number > 0 && frame_instruction(&again[number]) != frame_instruction(&first[number]))
            return false;
    }
    return true;
}

enum walked walk_other(uintptr_t state, struct raw_stack *stack, uintptr_t *context)
{
    for (int attempt = 0; attempt < TRIES; attempt++)
        if (walk_once(state, stack, context))
            return WALK_DONE;
    return WALK_TORN;
}
