/* Another thread's stack, read while that thread runs or waits. All of it is for one caller at a time. */
#include "codes.h"
#include "kernel.h"
#include "labels.h"
#include "layout.h"
#include "walk.h"

#include <stdalign.h>
#include <string.h>

#define TRIES 4
#define COPY_BYTES (64u * 1024)
#define MOST_STEPS (4 * MAX_DEPTH)
#define MOST_SEEN 1024
#define MOST_OUTSIDE 256
/* A thread that returns and calls again may come back to where it was, some microseconds later, and all in between is not
 * noticed. Nor is it when this thread is put aside for milliseconds meanwhile: then what was read is not believed. */
#define MOST_ASIDE_NS 30000

/* A chunk of the data stack as far as it is in use; its header is part of it. */
struct copy {
    uintptr_t chunk;
    size_t size;
    alignas(16) unsigned char bytes[COPY_BYTES];
};
static struct copy upper, lower, upper_again;

/* What is read of a frame and must be the same when it is read again. */
struct seen {
    uintptr_t at, code, instruction, previous;
};
static struct seen seen[MOST_SEEN];
static Frame outside_again[MOST_OUTSIDE];

static bool holds(const struct copy *copy, uintptr_t frame)
{
    return copy->chunk && frame >= copy->chunk + CHUNK_HEADER && frame + FRAME_SIZE <= copy->chunk + copy->size;
}

static uintptr_t below(const struct copy *copy)
{
    return copy->chunk ? (uintptr_t)((const _PyStackChunk *)copy->bytes)->previous : 0;
}

/* One attempt. */
struct reading {
    uintptr_t state;
    PyThreadState copied;
    struct top top;
    unsigned count; /* of `seen` */
    bool entered;   /* the topmost entry into the interpreter was found, and came from: */
    uintptr_t entered_from;
};

/* Copies the topmost chunk, and the topmost pointer before and after it: the thread may go on meanwhile. */
static bool begin(struct reading *reading)
{
    const PyThreadState *copied = &reading->copied;
    struct top after;
    if (!kernel_read(reading->state, &reading->copied, TSTATE_SIZE))
        return false;
    upper.chunk = (uintptr_t)copied->datastack_chunk;
    upper.size = upper.chunk ? (uintptr_t)copied->datastack_top - upper.chunk : 0;
    lower.chunk = 0;
    if (upper.size > COPY_BYTES || (upper.chunk && upper.size < CHUNK_HEADER))
        return false;
    struct part parts[] = {
        {top_pointer(reading->state, copied), &reading->top, sizeof after},
        {upper.chunk, upper.bytes, upper.size},
        {top_pointer(reading->state, copied), &after, sizeof after},
    };
    return kernel_read_parts(parts, 3) && memcmp(&reading->top, &after, sizeof after) == 0;
}

/* Copies the next chunk down if the frame lies there. */
static bool go_down(uintptr_t frame)
{
    uintptr_t chunk = lower.chunk ? below(&lower) : below(&upper);
    _PyStackChunk header;
    if (!chunk || frame < chunk || !kernel_read(chunk, &header, CHUNK_HEADER) || frame - chunk >= header.size)
        return false;
    size_t size = CHUNK_HEADER + header.top * sizeof(PyObject *);
    if (size > COPY_BYTES || !kernel_read(chunk, lower.bytes, size))
        return false;
    lower.chunk = chunk;
    lower.size = size;
    return holds(&lower, frame);
}

enum where { NOWHERE, IN_UPPER, IN_LOWER, OUTSIDE };

/* Generators' frames lie in their objects, and those of the interpreter itself on the C stack. */
static enum where read_frame(uintptr_t at, Frame *into)
{
    if (at % alignof(Frame))
        return NOWHERE;
    bool is_upper = holds(&upper, at);
    if (is_upper || holds(&lower, at) || go_down(at)) {
        const struct copy *copy = is_upper ? &upper : &lower;
        memcpy(into, copy->bytes + (at - copy->chunk), FRAME_SIZE);
        return is_upper ? IN_UPPER : IN_LOWER;
    }
    return kernel_read(at, into, FRAME_SIZE) ? OUTSIDE : NOWHERE;
}

/* Functions called one after the other have their frames in the same place, so the topmost one may be gone, and the frame below
 * it in the middle of something else. */
static bool may_be(const Frame *frame, const Frame *above)
{
    if (frame_is_nobodys(frame))
        return true;
    bool calls = above != NULL && !frame_is_entry(above); /* and stays in the interpreter */
    return calls ? !frame_is_at_work(frame) : above != NULL || frame_is_at_work(frame);
}

static bool is_same(const struct seen *before, const Frame *now, bool topmost)
{
    /* The topmost may be at another instruction of the same function: it is working. */
    return frame_code(now) == before->code && (uintptr_t)now->previous == before->previous &&
           (topmost || frame_instruction(now) == before->instruction);
}

static bool is_same_thread(const struct reading *reading, const PyThreadState *now, const struct top *top, const struct top *below)
{
    return memcmp(top, &reading->top, sizeof *top) == 0 && now->context == reading->copied.context &&
           now->datastack_chunk == reading->copied.datastack_chunk &&
           top_pointer(reading->state, now) == top_pointer(reading->state, &reading->copied) &&
           (!HAS_C_FRAMES || !reading->entered || below->frame == reading->entered_from);
}

/* Reads again what was read. Not the lower chunks: who comes back to the same frames in the upper one has not been there. */
static bool all_same(const struct reading *reading)
{
    static struct part parts[MOST_OUTSIDE + 4];
    PyThreadState now;
    struct top top, below = {0};
    uintptr_t below_at = top_pointer_below(&reading->top);
    unsigned outside = 0;
    parts[0] = (struct part){reading->state, &now, TSTATE_SIZE};
    parts[1] = (struct part){top_pointer(reading->state, &reading->copied), &top, sizeof top};
    parts[2] = (struct part){below_at, &below, below_at ? sizeof below : 0};
    parts[3] = (struct part){upper.chunk, upper_again.bytes, upper.size};
    for (unsigned number = 0; number < reading->count; number++)
        if (!holds(&upper, seen[number].at)) {
            parts[4 + outside] = (struct part){seen[number].at, &outside_again[outside], FRAME_SIZE};
            outside++;
        }
    if (!kernel_read_parts(parts, 4 + outside) || !is_same_thread(reading, &now, &top, &below))
        return false;
    outside = 0;
    for (unsigned number = 0; number < reading->count; number++) {
        Frame frame;
        if (holds(&upper, seen[number].at))
            memcpy(&frame, upper_again.bytes + (seen[number].at - upper.chunk), FRAME_SIZE);
        else
            memcpy(&frame, &outside_again[outside++], FRAME_SIZE);
        if (!is_same(&seen[number], &frame, number == 0))
            return false;
    }
    return true;
}

static bool all_codes(const struct raw_stack *stack)
{
    for (uint32_t number = 0; number < stack->depth; number++) {
        uintptr_t code = stack->places[number].code, type;
        if (code >= SPECIAL_END && !code_is_known(code) &&
            (!kernel_read(code + offsetof(PyObject, ob_type), &type, sizeof type) || type != (uintptr_t)&PyCode_Type))
            return false;
    }
    return true;
}

/* Time in which this thread did not run, since some moment. */
static int64_t aside(void) { return (int64_t)(kernel_monotonic() - kernel_own_cpu()); }

static bool walk_once(uintptr_t state, struct raw_stack *stack, struct label_ref *label)
{
    struct reading reading = {.state = state};
    int64_t before = aside();
    Frame frame, above;
    unsigned outside = 0, steps = 0;
    stack->depth = 0;
    if (!begin(&reading))
        return false;
    for (uintptr_t at = reading.top.frame; at != 0; at = (uintptr_t)frame.previous) {
        enum where where = read_frame(at, &frame);
        if (where == NOWHERE || !may_be(&frame, steps ? &above : NULL) || steps++ == MOST_STEPS)
            return false;
        memcpy(&above, &frame, FRAME_SIZE);
        if (reading.count < MOST_SEEN && (where == IN_UPPER || (where == OUTSIDE && outside++ < MOST_OUTSIDE)))
            seen[reading.count++] =
                (struct seen){at, frame_code(&frame), frame_instruction(&frame), (uintptr_t)frame.previous};
        if (!reading.entered && frame_is_entry(&frame)) {
            reading.entered = true;
            reading.entered_from = (uintptr_t)frame.previous;
        }
        if (!frame_is_nobodys(&frame) && !stack_push(stack, frame_code(&frame), frame_instruction(&frame)))
            break;
    }
    *label = label_of_other((uintptr_t)reading.copied.context);
    return all_same(&reading) && aside() - before <= MOST_ASIDE_NS && all_codes(stack);
}

enum walked walk_other(uintptr_t state, struct raw_stack *stack, struct label_ref *label)
{
    for (int attempt = 0; attempt < TRIES; attempt++)
        if (walk_once(state, stack, label))
            return WALK_DONE;
    return WALK_TORN;
}
