#include "drain.h"
#include "codes.h"
#include "contention.h"
#include "labels.h"
#include "lists.h"
#include "moments.h"
#include "ring.h"
#include "table.h"

#define MAX_SAMPLES 16384

struct sample {
    uint64_t time_ns, cpu_ns, waited_ns, seen_ns, locks_waited_ns, locks_seen_ns;
    uint32_t thread, stack, reason;
    struct label_parts label; /* strong references, or NULL */
};

struct drain_counts drain_counts;
static struct sample samples[MAX_SAMPLES];
static uint32_t sample_count, taken;
static uint32_t stacks_told, frames_told;

static void resolve(struct record *record)
{
    if (sample_count == MAX_SAMPLES) {
        drain_counts.dropped++;
        return;
    }
    struct sample *sample = &samples[sample_count++];
    bool lost = false;
    *sample = (struct sample){.time_ns = record->time_ns,
                              .cpu_ns = record->cpu_ns,
                              .waited_ns = record->waited_ns,
                              .seen_ns = record->seen_ns,
                              .locks_waited_ns = record->locks_waited_ns,
                              .locks_seen_ns = record->locks_seen_ns,
                              .reason = record->reason,
                              .thread = record->thread,
                              .stack = NO_STACK};
    if (record->kind != RECORD_STAY) {
        const struct place *leaf = record->depth == 1 ? record->places : NULL;
        if (leaf != NULL && leaf->code == SPECIAL_KNOWN)
            sample->stack = contention_still((struct known_at){(uint32_t)leaf->offset, record->table});
        else
            sample->stack = table_stack(record, &lost);
        sample->label = label_parts(record->label);
        if (lost)
            drain_counts.lost++;
        else if (sample->stack == NO_STACK)
            drain_counts.dropped++;
    }
}

void drain_ring(uintptr_t unused)
{
    (void)unused;
    for (struct record *record; (record = ring_peek()) != NULL;) {
        resolve(record);
        ring_release(record);
    }
}

void drain_before_code_goes(uintptr_t code)
{
    drain_ring(code);
    table_code_freed(code);
}

/* -- for Python -----------------------------------------------------------------------------------------------------
 * Making objects may set off the garbage collector, which may free code objects, and then drain_ring() is called in
 * between: so everything here is found by counting, and what is appended meanwhile is taken, too. */

static PyObject *stack_tuple(uint32_t stack)
{
    uint32_t depth;
    const uint32_t *frames = table_frames_of(stack, &depth);
    PyObject *numbers = PyTuple_New(depth);
    for (uint32_t place = 0; numbers != NULL && place < depth; place++) {
        PyObject *number = PyLong_FromUnsignedLong(frames[place]);
        if (number == NULL)
            Py_CLEAR(numbers);
        else
            PyTuple_SET_ITEM(numbers, place, number);
    }
    return numbers;
}

static PyObject *frame_tuple(uint32_t number)
{
    const struct known_frame *frame = table_frame(number);
    const struct known_code *code = table_code(frame->code);
    if (code->special)
        return Py_BuildValue("iOii", (int)code->special, Py_None, 0, 0);
    return Py_BuildValue("OOii", code->name, code->file, (int)frame->line, code->first_line);
}

/* All fields, also after one that failed: the label's references are given away. */
static int append_sample(PyObject *list, struct sample sample)
{
    uint64_t times[] = {sample.cpu_ns, sample.waited_ns, sample.seen_ns, sample.locks_waited_ns, sample.locks_seen_ns};
    int failed = list_append(list, PyLong_FromUnsignedLongLong(sample.time_ns)) | list_append(list, PyLong_FromUnsignedLong(sample.thread));
    failed |= list_append(list, PyLong_FromLong(sample.stack == NO_STACK ? -1L : (long)sample.stack));
    for (size_t place = 0; place < sizeof times / sizeof *times; place++)
        failed |= list_append(list, PyLong_FromUnsignedLongLong(times[place]));
    failed |= list_append(list, PyLong_FromUnsignedLong(sample.reason));
    return failed | label_append(list, sample.label);
}

static void begin_anew(void)
{
    stacks_told = frames_told = 0;
    table_clear();
    contention_new_table();
}

void drain_clear(void)
{
    drain_ring(0);
    contention_clear();
    moments_clear();
    while (taken < sample_count) {
        struct label_parts label = samples[taken++].label;
        Py_XDECREF(label.resolve);
        Py_XDECREF(label.subject);
    }
    taken = sample_count = 0;
    begin_anew();
}

PyObject *drain_take(void)
{
    /* Before the table begins anew: it has the numbers of these. */
    PyObject *contentions = contention_take(), *moments = contentions != NULL ? moments_take() : NULL;
    if (moments == NULL) {
        Py_XDECREF(contentions);
        return NULL;
    }
    bool cleared = table_crowded() && taken == sample_count && stacks_told == table_stack_count() && contention_taken() &&
                   moments_taken();
    if (cleared) {
        begin_anew();
        drain_counts.clears++;
    }
    drain_ring(0);
    PyObject *result[3] = {PyList_New(0), PyList_New(0), PyList_New(0)};
    bool good = result[0] != NULL && result[1] != NULL && result[2] != NULL;
    while (good && taken < sample_count)
        good = append_sample(result[0], samples[taken++]) == 0;
    if (taken == sample_count)
        taken = sample_count = 0;
    while (good && stacks_told < table_stack_count())
        good = list_append(result[1], stack_tuple(stacks_told++)) == 0;
    while (good && frames_told < table_frame_count())
        good = list_append(result[2], frame_tuple(frames_told++)) == 0;
    if (!good) {
        for (int place = 0; place < 3; place++)
            Py_XDECREF(result[place]);
        Py_DECREF(contentions);
        Py_DECREF(moments);
        return NULL;
    }
    return Py_BuildValue("NNNNNN", result[0], result[1], result[2], PyBool_FromLong(cleared), contentions, moments);
}
