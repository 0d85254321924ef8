#include "moments.h"
#include "labels.h"
#include "table.h"
#include "threads.h"

#define MAX_MOMENTS 2048u

struct moment {
    uint32_t thread, stack, holder;
    uint64_t time_ns, waited_ns;
    struct label_parts label; /* strong references, or NULL */
};

uint64_t moments_dropped;
static uint64_t least;
static struct moment moments[MAX_MOMENTS];
static uint32_t moment_count, taken;

void moments_set_least(uint64_t least_ns) { least = least_ns; }

/* Who was not known when it began to wait may be known by now. */
static uint32_t thread_of(const struct waiter *waiter)
{
    const struct thread *thread = waiter->thread ? NULL : threads_own();
    return thread ? thread->key : waiter->thread;
}

void moments_note(const struct waiter *waiter, uint32_t holder, uint64_t now, uint64_t waited)
{
    if (least == 0 || waited < least)
        return;
    if (moment_count == MAX_MOMENTS) {
        moments_dropped++;
        return;
    }
    struct moment *moment = &moments[moment_count++];
    *moment = (struct moment){thread_of(waiter), contention_stack(waiter), holder, now, waited, {NULL, NULL}};
    if (waiter->label.number)
        moment->label = label_parts(waiter->label);
}

/* -- for Python -----------------------------------------------------------------------------------------------------
 * Making objects may run anything, which may wait: what is noted meanwhile is taken, too. */

static PyObject *moment_tuple(struct moment moment)
{
    PyObject *resolve = moment.label.resolve ? moment.label.resolve : Py_NewRef(Py_None);
    PyObject *subject = moment.label.subject ? moment.label.subject : Py_NewRef(Py_None);
    /* "N" takes the reference. */
    return Py_BuildValue("IlIKKNN", moment.thread, moment.stack == NO_STACK ? -1L : (long)moment.stack, moment.holder,
                         moment.time_ns, moment.waited_ns, resolve, subject);
}

static void begin_anew_if_taken(void)
{
    if (taken == moment_count)
        taken = moment_count = 0;
}

PyObject *moments_take(void)
{
    PyObject *list = PyList_New(0);
    while (list != NULL && taken < moment_count) {
        PyObject *item = moment_tuple(moments[taken++]);
        if (item == NULL || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    begin_anew_if_taken();
    return list;
}

bool moments_taken(void) { return moment_count == 0; }

void moments_clear(void)
{
    while (taken < moment_count) {
        struct label_parts label = moments[taken++].label;
        Py_XDECREF(label.resolve);
        Py_XDECREF(label.subject);
    }
    begin_anew_if_taken();
}
