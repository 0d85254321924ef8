/* Another thread's stack, read while that thread waits or runs. All of it is for one caller at a time.
 *
 * Whether the thread ran meanwhile its CPU clock tells: if not, what was read is what is there. If it ran, its frames may have
 * come and gone between one read and the next, so only such a stack is believed as can have been there at one moment. */
#include "codes.h"
#include "kernel.h"
#include "labels.h"
#include "layout.h"
#include "threads.h"
#include "walk.h"

#include <stdalign.h>
#include <string.h>

#define TRIES 4
#define TRIES_RUNNING 6
#define COPY_BYTES (64u * 1024)
#define MOST_STEPS (4 * MAX_DEPTH)
#define MOST_GONE 8
#define MARGIN_BYTES 1024u /* some frames more than there were when the thread was asked */
#define MOST_SEEN 256
/* A thread that returns and calls again may come back to where it was, and all in between is not noticed. Some microseconds are
 * too short for that, but this thread may be put aside for milliseconds: then what was read is not believed. */
#define MOST_ASIDE_NS 30000

/* A chunk of the data stack as far as it is in use; its header is part of it. */
struct copy {
    uintptr_t chunk;
    size_t size;
    alignas(16) unsigned char bytes[COPY_BYTES];
};
static struct copy upper, lower;

/* A frame whose caller or callee was read at another moment. */
struct seen {
    uintptr_t at, code, instruction, previous;
    bool topmost;
};
static struct seen seen[MOST_SEEN];

/* One attempt. */
struct reading {
    uintptr_t state;
    PyThreadState copied;
    struct top before, after; /* the topmost pointer, before the topmost chunk was copied and after */
    uintptr_t context_before, context_after;
    struct raw_stack *stack;
    unsigned count; /* of `seen` */
    bool entered;   /* the topmost entry into the interpreter was found, and came from: */
    uintptr_t entered_from;
};

static bool holds(const struct copy *copy, uintptr_t frame)
{
    /* Without a sum: garbage may be so large that it would wrap. */
    return copy->chunk && frame >= copy->chunk + CHUNK_HEADER && frame - copy->chunk < copy->size &&
           copy->size - (frame - copy->chunk) >= FRAME_SIZE;
}

static uintptr_t below(const struct copy *copy)
{
    return copy->chunk ? (uintptr_t)((const _PyStackChunk *)copy->bytes)->previous : 0;
}

/* False when that is no longer this thread's state. */
static bool read_state(struct reading *reading, pid_t tid)
{
    return kernel_read(reading->state, &reading->copied, TSTATE_SIZE) && reading->copied.interp == threads_interpreter() &&
           (pid_t)reading->copied.native_thread_id == tid;
}

/* Copies the topmost chunk, and the topmost pointer before and after it. */
static bool begin(struct reading *reading)
{
    const PyThreadState *copied = &reading->copied;
    upper.chunk = (uintptr_t)copied->datastack_chunk;
    upper.size = upper.chunk ? (uintptr_t)copied->datastack_top - upper.chunk : 0;
    lower.chunk = 0;
    if (upper.size > COPY_BYTES || (upper.chunk && upper.size < CHUNK_HEADER))
        return false;
    /* What it has called meanwhile lies above. */
    if (upper.chunk && upper.size + MARGIN_BYTES <= COPY_BYTES &&
        (uintptr_t)copied->datastack_top + MARGIN_BYTES <= (uintptr_t)copied->datastack_limit)
        upper.size += MARGIN_BYTES;
    uintptr_t top_at = top_pointer(reading->state, copied), context_at = reading->state + offsetof(PyThreadState, context);
    struct part parts[] = {
        {context_at, &reading->context_before, sizeof reading->context_before},
        {top_at, &reading->before, sizeof reading->before},
        {upper.chunk, upper.bytes, upper.size},
        {top_at, &reading->after, sizeof reading->after},
        {context_at, &reading->context_after, sizeof reading->context_after},
    };
    return kernel_read_parts(parts, 5);
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

/* Returns what was read together with it: the chunk's address; the frame's own where it was read by itself, since generators'
 * frames lie in their objects, and those of the interpreter on the C stack; 0 when there is no such frame. */
static uintptr_t read_frame(uintptr_t at, Frame *into)
{
    if (at % alignof(Frame))
        return 0;
    bool is_upper = holds(&upper, at);
    if (is_upper || holds(&lower, at) || go_down(at)) {
        const struct copy *copy = is_upper ? &upper : &lower;
        memcpy(into, copy->bytes + (at - copy->chunk), FRAME_SIZE);
        return copy->chunk;
    }
    return kernel_read(at, into, FRAME_SIZE) ? at : 0;
}

/* Whether the interpreter can be in these two at once: in a frame that has called another one it is at work only if it was
 * entered anew for that, by way of C. Functions called one after the other have their frames in the same place. */
static bool can_be(const Frame *frame, const Frame *above)
{
    return above == NULL || frame_is_nobodys(frame) || frame_is_at_work(frame) == frame_is_entry(above);
}

static void note(struct reading *reading, uintptr_t at, const Frame *frame, bool topmost)
{
    if (reading->count < MOST_SEEN)
        seen[reading->count++] = (struct seen){at, frame_code(frame), frame_instruction(frame), (uintptr_t)frame->previous, topmost};
}

/* Follows the frames from `top` down; with `checked` only as long as they can be there together. */
static bool follow(struct reading *reading, uintptr_t top, bool checked)
{
    Frame frame, above;
    uintptr_t above_at = 0, together, above_together = 0;
    unsigned steps = 0;
    bool is_noted = false;
    reading->stack->depth = reading->count = 0;
    reading->entered = false;
    for (uintptr_t at = top; at != 0; at = (uintptr_t)frame.previous) {
        together = read_frame(at, &frame);
        if (!together || (checked && !can_be(&frame, above_at ? &above : NULL)) || steps++ == MOST_STEPS)
            return false;
        /* A generator that is not running has no caller. */
        if (checked && together == at && frame.previous == NULL && !frame_is_nobodys(&frame))
            return false;
        /* What was read at different moments must be the same when it is read again. */
        if (above_at && together != above_together) {
            if (!is_noted)
                note(reading, above_at, &above, above_at == top);
            note(reading, at, &frame, false);
            is_noted = true;
        }
        else
            is_noted = false;
        if (!reading->entered && frame_is_entry(&frame)) {
            reading->entered = true;
            reading->entered_from = (uintptr_t)frame.previous;
        }
        if (!frame_is_nobodys(&frame) && frame_code(&frame) < SPECIAL_END)
            return false;
        if (!frame_is_nobodys(&frame) && !stack_push(reading->stack, frame_code(&frame), frame_instruction(&frame)))
            break;
        memcpy(&above, &frame, FRAME_SIZE);
        above_at = at;
        above_together = together;
    }
    return true;
}

/* The frame that the interpreter works in. Those above it are gone: none of them is an entry, or somebody may have been called
 * from there who is not to be seen. */
static bool find_top(uintptr_t at, uintptr_t *found)
{
    Frame frame;
    for (unsigned step = 0; at != 0 && step < MOST_GONE; step++) {
        if (!read_frame(at, &frame))
            return false;
        *found = at;
        if (frame_is_at_work(&frame) && !frame_is_nobodys(&frame))
            return true;
        if (frame_is_entry(&frame) && (step > 0 || !frame_is_nobodys(&frame)))
            return false;
        at = (uintptr_t)frame.previous;
    }
    return false;
}

/* Whether the topmost entry into the interpreter came from where the C frame below says: a C frame just made points to
 * whatever lay there before. */
static bool entry_agrees(const struct reading *reading, const struct top *top)
{
    struct top entry = {0};
    uintptr_t at = top_pointer_below(top);
    if (!HAS_C_FRAMES || !reading->entered)
        return !HAS_C_FRAMES || reading->stack->depth == 0 || reading->stack->depth > MAX_DEPTH;
    return (!at || kernel_read(at, &entry, sizeof entry)) && entry.frame == reading->entered_from;
}

/* Reads what may have become another one: the thread's state, and each frame that was read by itself. */
static bool is_still_there(const struct reading *reading)
{
    static struct part parts[MOST_SEEN + 1];
    static Frame frames[MOST_SEEN];
    PyThreadState now;
    parts[0] = (struct part){reading->state, &now, TSTATE_SIZE};
    for (unsigned number = 0; number < reading->count; number++)
        parts[1 + number] = (struct part){seen[number].at, &frames[number], FRAME_SIZE};
    if (!kernel_read_parts(parts, 1 + reading->count) || now.datastack_chunk != reading->copied.datastack_chunk ||
        top_pointer(reading->state, &now) != top_pointer(reading->state, &reading->copied))
        return false;
    for (unsigned number = 0; number < reading->count; number++) {
        const struct seen *before = &seen[number];
        if (frame_code(&frames[number]) != before->code || (uintptr_t)frames[number].previous != before->previous ||
            (!before->topmost && frame_instruction(&frames[number]) != before->instruction))
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

static bool walk_running(struct reading *reading, pid_t tid, struct label_ref *label)
{
    int64_t before = aside();
    uintptr_t context;
    if (!kernel_read(reading->state + offsetof(PyThreadState, context), &context, sizeof context))
        return false;
    struct label_ref label_before = label_of_other(context);
    if (!read_state(reading, tid) || !begin(reading))
        return false;
    /* When it goes from one's work to another's, the stack may be of either. */
    if (reading->context_before != context || reading->context_after != context)
        return false;
    const struct top *tops[] = {&reading->after, &reading->before};
    for (int number = 0; number < 2; number++) {
        uintptr_t top = tops[number]->frame;
        if (top == 0) {
            reading->stack->depth = 0;
            return true;
        }
        if (!find_top(top, &top) || !follow(reading, top, true))
            continue;
        *label = label_of_other(context);
        return label->number == label_before.number && entry_agrees(reading, tops[number]) && is_still_there(reading) &&
               aside() - before <= MOST_ASIDE_NS && all_codes(reading->stack);
    }
    return false;
}

enum walked walk_other(pid_t tid, uintptr_t state, bool also_running, struct raw_stack *stack, struct label_ref *label)
{
    struct reading reading = {.state = state, .stack = stack};
    bool runs = false;
    *label = (struct label_ref){0, 0};
    for (int attempt = 0; attempt < TRIES && !runs; attempt++) {
        uint64_t clock = kernel_thread_cpu(tid);
        if (!read_state(&reading, tid)) {
            /* It has left Python, and what was its state may be another thread's by now. */
            stack->depth = 0;
            return WALK_DONE;
        }
        bool good = begin(&reading) && follow(&reading, reading.after.frame, false);
        good = good && entry_agrees(&reading, &reading.after);
        *label = label_of_other(reading.context_after);
        runs = kernel_thread_cpu(tid) != clock;
        if (good && !runs && all_codes(stack))
            return WALK_DONE;
    }
    if (runs && !also_running)
        return WALK_RUNS;
    for (int attempt = 0; attempt < TRIES_RUNNING; attempt++)
        if (walk_running(&reading, tid, label))
            return WALK_DONE;
    return WALK_TORN;
}
