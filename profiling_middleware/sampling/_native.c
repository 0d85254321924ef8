/* The native engine's door to Python: sampling/native.py is its only caller, _native.pyi says what each function does.
 *
 * A signal handler (sampler.c) and a thread without Python (looker.c, looks.c) write records into a ring (ring.c). Whoever holds the
 * GIL resolves them (drain.c, table.c): Python when it asks, or the moment before a code object or label in them is freed.
 */
#include "csrc/common.h"
#include "csrc/codes.h"
#include "csrc/contention.h"
#include "csrc/drain.h"
#include "csrc/kernel.h"
#include "csrc/labels.h"
#include "csrc/locks.h"
#include "csrc/looker.h"
#include "csrc/looks.h"
#include "csrc/moments.h"
#include "csrc/natives.h"
#include "csrc/ring.h"
#include "csrc/sampler.h"
#include "csrc/steps.h"
#include "csrc/suspended.h"
#include "csrc/tasks.h"
#include "csrc/threads.h"
#include "csrc/walk.h"

#include <pthread.h>

/* The looking thread may hold the lock for milliseconds: nobody waits for it with the GIL. */
static void lock_threads(void)
{
    Py_BEGIN_ALLOW_THREADS
    threads_lock();
    Py_END_ALLOW_THREADS
}

static PyObject *install(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(sampler_install());
}

static PyObject *uninstall(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    sampler_uninstall();
    Py_RETURN_NONE;
}

static PyObject *owns_signal(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(sampler_owns_signal());
}

static PyObject *could_install(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(sampler_could_install());
}

static PyObject *discover(PyObject *self, PyObject *own)
{
    (void)self;
    long tid = PyLong_AsLong(own);
    if (tid == -1 && PyErr_Occurred())
        return NULL;
    lock_threads();
    bool all = threads_discover(kernel_monotonic());
    threads_mark_own((pid_t)tid);
    threads_unlock();
    return PyBool_FromLong(all);
}

static PyObject *note_natives(PyObject *self, PyObject *clocks)
{
    (void)self;
    PyObject *tid, *cpu;
    Py_ssize_t position = 0;
    if (!PyDict_Check(clocks)) {
        PyErr_SetString(PyExc_TypeError, "a dictionary of CPU times by native id is needed");
        return NULL;
    }
    lock_threads();
    natives_forget();
    while (PyDict_Next(clocks, &position, &tid, &cpu))
        natives_note((pid_t)PyLong_AsLong(tid), PyLong_AsUnsignedLongLong(cpu));
    threads_unlock();
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *set_period(PyObject *self, PyObject *period)
{
    (void)self;
    unsigned long long nanoseconds = PyLong_AsUnsignedLongLong(period);
    if (PyErr_Occurred())
        return NULL;
    /* Timers whose signal nobody takes would end the process. */
    if (!sampler_owns_signal())
        nanoseconds = 0;
    lock_threads();
    looks_forget_ended();
    unsigned unarmed = threads_set_period(nanoseconds);
    threads_unlock();
    return PyLong_FromUnsignedLong(unarmed);
}

static PyObject *look(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long interval;
    int charges, why, signal;
    if (!PyArg_ParseTuple(arguments, "Kppp:look", &interval, &charges, &why, &signal))
        return NULL;
    lock_threads();
    bool good = true;
    if (looker_running())
        looker_set(interval, charges, why);
    else
        good = looker_start(interval, charges, why, signal);
    threads_unlock();
    if (!good) {
        PyErr_SetString(PyExc_OSError, "the thread that looks at stacks cannot be started");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *stop_looking(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    looker_stop();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *pause_looking(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    looker_pause();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *resume_looking(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    looker_resume();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *looker_id(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromLong(looker_tid());
}

static PyObject *forget_ended(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    lock_threads();
    looks_forget_ended();
    threads_unlock();
    Py_RETURN_NONE;
}

/* What one thread had left; gathered first, because making objects may run anything. */
struct rest {
    uint32_t key;
    pid_t tid;
    uint64_t cpu_ns;
    bool ours;
};

static PyObject *settle(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    static struct rest rests[MAX_THREADS];
    unsigned count = 0;
    lock_threads();
    looks_settle(kernel_monotonic());
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;) {
        uint64_t rest = threads_settle(thread);
        rests[count++] = (struct rest){thread->key, thread->tid, rest, thread->ours};
    }
    uint64_t settled = threads_take_settled();
    threads_unlock();
    PyObject *list = PyList_New(0);
    for (unsigned place = 0; list != NULL && place < count; place++) {
        const struct rest *rest = &rests[place];
        PyObject *item = Py_BuildValue("IiKO", rest->key, (int)rest->tid, rest->cpu_ns, rest->ours ? Py_True : Py_False);
        if (item == NULL || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list != NULL ? Py_BuildValue("NK", list, settled) : NULL;
}

static PyObject *new_threads(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    struct newcomer some[64];
    PyObject *list = PyList_New(0);
    unsigned count = 64;
    while (list != NULL && count == 64) {
        lock_threads();
        count = threads_take_new(some, 64);
        threads_unlock();
        for (unsigned place = 0; list != NULL && place < count; place++) {
            PyObject *item = Py_BuildValue("Iki", some[place].key, some[place].ident, (int)some[place].tid);
            if (item == NULL || PyList_Append(list, item) != 0)
                Py_CLEAR(list);
            Py_XDECREF(item);
        }
    }
    return list;
}

static PyObject *ended_threads(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    uint32_t some[64];
    PyObject *list = PyList_New(0);
    unsigned count = 64;
    while (list != NULL && count == 64) {
        lock_threads();
        count = threads_take_ended(some, 64);
        threads_unlock();
        for (unsigned place = 0; list != NULL && place < count; place++) {
            PyObject *item = PyLong_FromUnsignedLong(some[place]);
            if (item == NULL || PyList_Append(list, item) != 0)
                Py_CLEAR(list);
            Py_XDECREF(item);
        }
    }
    return list;
}

static PyObject *enlist(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    /* If the looking thread has the lock, it finds this one by itself: nobody waits here. */
    if (threads_try_lock()) {
        threads_enlist(PyThreadState_Get(), kernel_monotonic());
        threads_unlock();
    }
    return PyLong_FromLong(kernel_gettid());
}

static PyObject *drain(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return drain_take();
}

static PyObject *clear(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    lock_threads();
    threads_clear();
    threads_unlock();
    drain_clear();
    Py_RETURN_NONE;
}

static PyObject *counts(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    uint64_t samples = atomic_load(&sampler_counts.samples), handlers_ns = atomic_load(&sampler_counts.own_ns);
    uint64_t lost = atomic_load(&sampler_counts.torn) + looks_counts.torn + drain_counts.lost;
    uint64_t dropped = atomic_load(&sampler_counts.no_room) + looks_counts.no_room + drain_counts.dropped;
    return Py_BuildValue("KKKKKKKK", samples, looks_counts.looks, handlers_ns, looker_used_ns(), lost, dropped,
                         drain_counts.clears, looks_counts.unread_states);
}

static PyObject *observe_locks(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(locks_observe());
}

static PyObject *leave_locks(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    locks_leave();
    Py_RETURN_NONE;
}

static PyObject *set_contention_rates(PyObject *self, PyObject *arguments)
{
    (void)self;
    unsigned long long block_rate, mutex_fraction;
    if (!PyArg_ParseTuple(arguments, "KK:set_contention_rates", &block_rate, &mutex_fraction))
        return NULL;
    contention_set_rates(block_rate, mutex_fraction);
    Py_RETURN_NONE;
}

static PyObject *set_wait_moments(PyObject *self, PyObject *least)
{
    (void)self;
    unsigned long long nanoseconds = PyLong_AsUnsignedLongLong(least);
    if (PyErr_Occurred())
        return NULL;
    moments_set_least(nanoseconds);
    Py_RETURN_NONE;
}

static PyObject *contention_totals(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return Py_BuildValue("KKKKK", contention_counts.waits, contention_counts.releases, contention_counts.dropped,
                         contention_counts.own_ns, moments_dropped);
}

static PyObject *observe_steps(PyObject *self, PyObject *arguments)
{
    (void)self;
    struct step_observer observer;
    if (!PyArg_ParseTuple(arguments, "OLOO:observe_steps", &observer.stepped, &observer.threshold_ns, &observer.created,
                          &observer.resolved))
        return NULL;
    return PyBool_FromLong(steps_observe(&observer));
}

static PyObject *leave_steps(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    steps_leave();
    Py_RETURN_NONE;
}

static PyObject *step_failures(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromUnsignedLongLong(steps_failures());
}

static PyObject *task_ids(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return tasks_ids();
}

static PyObject *task_name(PyObject *self, PyObject *id)
{
    (void)self;
    long number = PyLong_AsLong(id);
    return number == -1 && PyErr_Occurred() ? NULL : tasks_name(number);
}

static PyObject *suspended(PyObject *self, PyObject *step)
{
    (void)self;
    return suspended_places(step);
}

static PyObject *running(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *leaf;
    int of_task;
    return PyArg_ParseTuple(arguments, "Op:running", &leaf, &of_task) ? running_places(leaf, of_task) : NULL;
}

static void leave_out_of_collections(PyObject *object)
{
    if (!PyObject_GC_IsTracked(object))
        return;
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t place = 0; PyTuple_Check(object) && place < PyTuple_GET_SIZE(object); place++)
        if (PyTuple_Check(PyTuple_GET_ITEM(object, place)))
            leave_out_of_collections(PyTuple_GET_ITEM(object, place));
}

static PyObject *untrack(PyObject *self, PyObject *object)
{
    (void)self;
    leave_out_of_collections(object);
    return Py_NewRef(object);
}

static PyObject *watch(PyObject *self, PyObject *variable)
{
    (void)self;
    if (!labels_watch(variable))
        return NULL;
    Py_RETURN_NONE;
}

/* -- for the self-test --------------------------------------------------------------------------------------------- */

static PyObject *names_of(const struct raw_stack *stack)
{
    PyObject *list = PyList_New(0);
    for (uint32_t place = 0; list != NULL && place < stack->depth; place++) {
        PyObject *item;
        uintptr_t address = stack->places[place].code;
        if (address < SPECIAL_END)
            item = Py_BuildValue("ki", (unsigned long)address, 0);
        else {
            PyCodeObject *code = (PyCodeObject *)address;
            item = Py_BuildValue("Oi", code, PyCode_Addr2Line(code, stack->places[place].offset));
        }
        if (item == NULL || PyList_Append(list, item) != 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *own_stack(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    static struct raw_stack stack;
    if (walk_own(PyGILState_GetThisThreadState(), &stack) != WALK_DONE)
        Py_RETURN_NONE;
    return names_of(&stack);
}

static PyObject *own_stack_from_outside(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    static struct raw_stack stack;
    struct label_ref label;
    lock_threads();
    enum walked walked = walk_other(kernel_gettid(), (uintptr_t)PyGILState_GetThisThreadState(), true, &stack, &label);
    threads_unlock();
    if (walked != WALK_DONE)
        Py_RETURN_NONE;
    return names_of(&stack);
}

static PyObject *own_label(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    uintptr_t context = (uintptr_t)PyThreadState_Get()->context;
    struct label_ref inside = label_of_own(context), outside = label_of_other(context);
    if (!inside.number || inside.slot != outside.slot || inside.number != outside.number)
        Py_RETURN_NONE;
    struct label_parts parts = label_parts(inside);
    Py_XDECREF(parts.resolve);
    return parts.subject != NULL ? parts.subject : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, NULL},
    {"uninstall", uninstall, METH_NOARGS, NULL},
    {"owns_signal", owns_signal, METH_NOARGS, NULL},
    {"could_install", could_install, METH_NOARGS, NULL},
    {"discover", discover, METH_O, NULL},
    {"note_natives", note_natives, METH_O, NULL},
    {"set_period", set_period, METH_O, NULL},
    {"look", look, METH_VARARGS, NULL},
    {"stop_looking", stop_looking, METH_NOARGS, NULL},
    {"pause_looking", pause_looking, METH_NOARGS, NULL},
    {"resume_looking", resume_looking, METH_NOARGS, NULL},
    {"looker_id", looker_id, METH_NOARGS, NULL},
    {"forget_ended", forget_ended, METH_NOARGS, NULL},
    {"settle", settle, METH_NOARGS, NULL},
    {"new_threads", new_threads, METH_NOARGS, NULL},
    {"ended_threads", ended_threads, METH_NOARGS, NULL},
    {"drain", drain, METH_NOARGS, NULL},
    {"clear", clear, METH_NOARGS, NULL},
    {"counts", counts, METH_NOARGS, NULL},
    {"observe_locks", observe_locks, METH_NOARGS, NULL},
    {"leave_locks", leave_locks, METH_NOARGS, NULL},
    {"set_contention_rates", set_contention_rates, METH_VARARGS, NULL},
    {"set_wait_moments", set_wait_moments, METH_O, NULL},
    {"contention_totals", contention_totals, METH_NOARGS, NULL},
    {"observe_steps", observe_steps, METH_VARARGS, NULL},
    {"leave_steps", leave_steps, METH_NOARGS, NULL},
    {"step_failures", step_failures, METH_NOARGS, NULL},
    {"task_ids", task_ids, METH_NOARGS, NULL},
    {"task_name", task_name, METH_O, NULL},
    {"suspended", suspended, METH_O, NULL},
    {"running", running, METH_VARARGS, NULL},
    {"untrack", untrack, METH_O, NULL},
    {"watch", watch, METH_O, NULL},
    {"own_stack", own_stack, METH_NOARGS, NULL},
    {"own_stack_from_outside", own_stack_from_outside, METH_NOARGS, NULL},
    {"own_label", own_label, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* Takes the place of _thread.get_native_id in `threading`, and is not to be told from it. */
static PyMethodDef enlist_method = {"get_native_id", enlist, METH_NOARGS, NULL};

static bool add_enlist(PyObject *module)
{
    PyObject *name = PyUnicode_FromString("_thread");
    PyObject *function = name != NULL ? PyCFunction_NewEx(&enlist_method, NULL, name) : NULL;
    bool good = function != NULL && PyModule_AddObjectRef(module, "enlist", function) == 0;
    Py_XDECREF(function);
    Py_XDECREF(name);
    return good;
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Stacks without the GIL.",
    .m_size = -1, /* one a process: signals are the process's, too */
    .m_methods = methods,
};

/* In a child made by a fork that Python knows nothing of, too: no timer and no thread of ours exists there. */
static void in_child(void)
{
    kernel_abandon();
    sampler_abandon();
    looker_abandon();
    threads_abandon();
    locks_abandon();
    ring_abandon();
}

static bool prepare(void)
{
    PyInterpreterState *interpreter = PyThreadState_Get()->interp;
    if (interpreter != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "only the main interpreter is observed");
        return false;
    }
    if (!kernel_init()) {
        PyErr_SetString(PyExc_ImportError, "the kernel lets this process read neither its memory nor its threads' clocks");
        return false;
    }
    if (!ring_init() || !threads_init(interpreter)) {
        PyErr_NoMemory();
        return false;
    }
    static bool hooked;
    if (!hooked && pthread_atfork(NULL, NULL, in_child) != 0) {
        PyErr_NoMemory();
        return false;
    }
    hooked = true;
    return codes_init(drain_before_code_goes) && labels_init(drain_ring);
}

PyMODINIT_FUNC PyInit__native(void)
{
    if (!prepare())
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL &&
        (PyModule_AddObjectRef(module, "Label", (PyObject *)&Label_Type) != 0 || !add_enlist(module)))
        Py_CLEAR(module);
    return module;
}
