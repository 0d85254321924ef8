#include "steps.h"
#include "kernel.h"
#include "threads.h"

#include <stdarg.h>

/* Modules/_asynciomodule.c of 3.11, 3.12 and 3.13; a specimen tells whether it is so. */
struct step_wrapper {
    PyObject_HEAD
    PyObject *task, *exception;
};

static struct step_observer observer; /* NULL for None */
static bool observed;
static unsigned long long failures;

/* `depth`: how many steps are under way in this thread, one within the other. `telling`: what an observer does is not
 * told. */
static _Thread_local struct {
    unsigned depth;
    bool telling;
} here;

/* -- functions that are replaced ----------------------------------------------------------------------------------- */

enum { STEP, WAKEUP, INIT, INIT_METHOD, SET_RESULT, SET_EXCEPTION, HOOKS };

typedef void *function __attribute__((may_alias));
struct hook {
    function *at;
    void *original, *ours;
    bool kept; /* when it was left another's function stood there, which may go on calling ours */
};
static struct hook hooks[HOOKS];

static void replace(struct hook *hook)
{
    if (*hook->at == hook->ours)
        return;
    if (*hook->at != hook->original) {
        /* To call another's that calls ours would have no end. */
        if (hook->kept)
            return;
        hook->original = *hook->at;
    }
    *hook->at = hook->ours;
}

static void put_back(struct hook *hook)
{
    if (*hook->at == hook->ours)
        *hook->at = hook->original;
    else
        hook->kept = true;
}

/* Subclasses have a copy: those that were there before have the original, those made meanwhile have ours. */
static void exchange_in_subclasses(PyObject *type, void *from, void *to)
{
    PyObject *subclasses = PyObject_CallMethod((PyObject *)&PyType_Type, "__subclasses__", "O", type);
    for (Py_ssize_t place = 0; subclasses != NULL && place < PyList_GET_SIZE(subclasses); place++) {
        PyObject *subclass = PyList_GET_ITEM(subclasses, place);
        function *init = (function *)&((PyTypeObject *)subclass)->tp_init;
        if (*init == from)
            *init = to;
        exchange_in_subclasses(subclass, from, to);
    }
    Py_XDECREF(subclasses);
    PyErr_Clear();
}

/* -- telling ------------------------------------------------------------------------------------------------------- */

/* What is shared with other interpreters is called there, too, where another GIL may order what happens. */
static bool is_passed_through(void) { return !observed || PyThreadState_Get()->interp != threads_interpreter(); }

/* False, with an exception, when the observer was interrupted; whatever else it raises stays here. */
static bool tell(PyObject *whom, const char *format, ...)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    va_list what;
    va_start(what, format);
    PyObject *arguments = Py_VaBuildValue(format, what);
    va_end(what);
    Py_INCREF(whom); /* another thread may exchange it meanwhile */
    here.telling = true;
    PyObject *told = arguments != NULL ? PyObject_CallObject(whom, arguments) : NULL;
    here.telling = false;
    Py_DECREF(whom);
    Py_XDECREF(arguments);
    if (told == NULL) {
        /* A signal's handler has raised that, by chance here: it is the program's, as between two callbacks of its
         * loop. */
        bool interrupted = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
        if (interrupted && type == NULL)
            return false;
        failures++;
    }
    Py_XDECREF(told);
    PyErr_Restore(type, value, trace);
    return true;
}

struct step {
    PyObject *task, *future;
    uint64_t began;
};

static void begin(struct step *step, PyObject *task, PyObject *future)
{
    step->task = Py_NewRef(task);
    step->future = Py_NewRef(future);
    here.depth++;
    step->began = kernel_monotonic();
}

/* Returns what the step returns. */
static PyObject *end(const struct step *step, PyObject *result)
{
    uint64_t ended = kernel_monotonic();
    here.depth--;
    bool long_enough = (long long)(ended - step->began) >= observer.threshold_ns;
    if (long_enough && observer.stepped != NULL && !here.telling &&
        !tell(observer.stepped, "(OOKK)", step->task, step->future, step->began, ended))
        Py_CLEAR(result);
    Py_DECREF(step->task);
    Py_DECREF(step->future);
    return result;
}

static PyObject *take_step(PyObject *wrapper, PyObject *arguments, PyObject *keywords)
{
    ternaryfunc original = (ternaryfunc)hooks[STEP].original;
    PyObject *task = ((struct step_wrapper *)wrapper)->task;
    if (is_passed_through() || task == NULL)
        return original(wrapper, arguments, keywords);
    struct step step;
    begin(&step, task, Py_None);
    return end(&step, original(wrapper, arguments, keywords));
}

static PyObject *wake_up(PyObject *task, PyObject *future)
{
    PyCFunction original = (PyCFunction)hooks[WAKEUP].original;
    if (is_passed_through())
        return original(task, future);
    struct step step;
    begin(&step, task, future);
    return end(&step, original(task, future));
}

static int init(PyObject *task, PyObject *arguments, PyObject *keywords)
{
    int result = ((initproc)hooks[INIT].original)(task, arguments, keywords);
    if (result != 0 || is_passed_through() || observer.created == NULL || here.telling)
        return result;
    return tell(observer.created, "(O)", task) ? 0 : -1;
}

/* False, with an exception, when it must not be resolved now. */
static bool may_resolve(PyObject *future)
{
    bool untold = here.depth == 0 || is_passed_through() || observer.resolved == NULL || here.telling;
    return untold || tell(observer.resolved, "(O)", future);
}

/* The methods of futures know their module since 3.12. */
#if PY_VERSION_HEX >= 0x030C0000
#define RESOLVES_AS (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)
#define RESOLVE(name, hook)                                                                                            \
    static PyObject *name(PyObject *future, PyTypeObject *type, PyObject *const *values, size_t count, PyObject *keys) \
    {                                                                                                                  \
        PyCMethod original = (PyCMethod)hooks[hook].original;                                                          \
        return may_resolve(future) ? original(future, type, values, count, keys) : NULL;                               \
    }
#else
#define RESOLVES_AS METH_O
#define RESOLVE(name, hook)                                                                                            \
    static PyObject *name(PyObject *future, PyObject *value)                                                           \
    {                                                                                                                  \
        return may_resolve(future) ? ((PyCFunction)hooks[hook].original)(future, value) : NULL;                        \
    }
#endif
RESOLVE(set_result, SET_RESULT)
RESOLVE(set_exception, SET_EXCEPTION)

/* -- beginning and end --------------------------------------------------------------------------------------------- */

static PyTypeObject *task_type; /* kept, and so are the functions in it */

static void know(unsigned number, void *at, void *ours)
{
    hooks[number] = (struct hook){.at = at, .original = *(function *)at, .ours = ours};
}

static PyMethodDef *find_resolver(PyTypeObject *future_type, const char *name)
{
    PyObject *method = PyDict_GetItemString(future_type->tp_dict, name);
    if (method == NULL || !Py_IS_TYPE(method, &PyMethodDescr_Type))
        return NULL;
    PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
    return definition->ml_flags == RESOLVES_AS ? definition : NULL;
}

/* What Python finds when it looks `__init__` up, as subclasses do. */
static PyWrapperDescrObject *find_init(PyTypeObject *type)
{
    PyObject *method = PyDict_GetItemString(type->tp_dict, "__init__");
    if (method == NULL || !Py_IS_TYPE(method, &PyWrapperDescr_Type))
        return NULL;
    PyWrapperDescrObject *wrapper = (PyWrapperDescrObject *)method;
    return wrapper->d_wrapped == (void *)type->tp_init ? wrapper : NULL;
}

static bool is_step_of(PyObject *step, PyObject *task)
{
    PyTypeObject *type = Py_TYPE(step);
    if (type->tp_basicsize != sizeof(struct step_wrapper) || type->tp_itemsize != 0 || type->tp_call == NULL ||
        PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL))
        return false;
    const struct step_wrapper *wrapper = (struct step_wrapper *)step;
    return wrapper->task == task && wrapper->exception == NULL;
}

static bool is_wakeup_of(PyObject *wakeup, PyObject *task)
{
    return PyCFunction_CheckExact(wakeup) && PyCFunction_GET_SELF(wakeup) == task &&
           PyCFunction_GET_FLAGS(wakeup) == METH_O;
}

static bool learn(PyObject *specimens)
{
    PyObject *future, *task, *step, *wakeup;
    if (!PyTuple_Check(specimens) || !PyArg_ParseTuple(specimens, "OOOO", &future, &task, &step, &wakeup))
        return false;
    PyWrapperDescrObject *init_method = find_init(Py_TYPE(task));
    PyMethodDef *result = find_resolver(Py_TYPE(future), "set_result");
    PyMethodDef *exception = find_resolver(Py_TYPE(future), "set_exception");
    if (init_method == NULL || result == NULL || exception == NULL || !is_step_of(step, task) ||
        !is_wakeup_of(wakeup, task))
        return false;
    know(STEP, &Py_TYPE(step)->tp_call, take_step);
    know(WAKEUP, &((PyCFunctionObject *)wakeup)->m_ml->ml_meth, wake_up);
    know(INIT, &Py_TYPE(task)->tp_init, init);
    know(INIT_METHOD, &init_method->d_wrapped, init);
    know(SET_RESULT, &result->ml_meth, set_result);
    know(SET_EXCEPTION, &exception->ml_meth, set_exception);
    Py_INCREF(Py_TYPE(step));
    task_type = (PyTypeObject *)Py_NewRef(Py_TYPE(task));
    return true;
}

static bool find(void)
{
    PyObject *module = PyImport_ImportModule("profiling_middleware.sampling.specimens");
    PyObject *specimens = module != NULL ? PyObject_CallMethod(module, "of_steps", NULL) : NULL;
    /* Making them, another thread may have been here before. */
    bool good = task_type != NULL || (specimens != NULL && learn(specimens));
    Py_XDECREF(specimens);
    Py_XDECREF(module);
    PyErr_Clear();
    return good;
}

static void exchange(PyObject *stepped, PyObject *created, PyObject *resolved, long long threshold_ns)
{
    struct step_observer last = observer;
    observer = (struct step_observer){stepped, created, resolved, threshold_ns};
    /* What goes now may do anything. */
    Py_XDECREF(last.stepped);
    Py_XDECREF(last.created);
    Py_XDECREF(last.resolved);
}

static PyObject *asked(PyObject *whom) { return whom != Py_None ? Py_NewRef(whom) : NULL; }

bool steps_observe(const struct step_observer *next)
{
    if (PyThreadState_Get()->interp != threads_interpreter() || (task_type == NULL && !find()))
        return false;
    for (unsigned number = 0; !observed && number < HOOKS; number++)
        replace(&hooks[number]);
    if (!observed)
        exchange_in_subclasses((PyObject *)task_type, hooks[INIT].original, hooks[INIT].ours);
    observed = true;
    exchange(asked(next->stepped), asked(next->created), asked(next->resolved), next->threshold_ns);
    return true;
}

void steps_leave(void)
{
    if (!observed || PyThreadState_Get()->interp != threads_interpreter())
        return;
    observed = false;
    for (unsigned number = 0; number < HOOKS; number++)
        put_back(&hooks[number]);
    exchange_in_subclasses((PyObject *)task_type, hooks[INIT].ours, hooks[INIT].original);
    exchange(NULL, NULL, NULL, 0);
}

unsigned long long steps_failures(void) { return failures; }
