#include "locks.h"
#include "contention.h"
#include "kernel.h"
#include "moments.h"
#include "threads.h"
#include "waiters.h"

#include <semaphore.h>
#include <string.h>

/* An acquire() that fails sooner was not to wait, whatever way it was told so. */
#define LEAST_WAIT_NS 2000

/* Modules/_threadmodule.c of 3.11, 3.12 and 3.13, where PyThread_type_lock is a POSIX semaphore: is_as_known() below tells. */
struct lock {
    PyObject_HEAD
    sem_t *semaphore;
    PyObject *weak_references;
    char locked;
};
struct rlock {
    PyObject_HEAD
    sem_t *semaphore;
    unsigned long owner, count;
    PyObject *weak_references;
};

/* Since 3.13 a thread's end is no lock of Python's. */
#define HAS_HANDLES (PY_VERSION_HEX >= 0x030D0000)

static PyTypeObject *lock_type, *rlock_type, *handle_type;
static bool observed;
static uint32_t process; /* changes with a fork: whoever waited before has no place in the child's tables */

/* -- waiting ------------------------------------------------------------------------------------------------------- */

static bool is_free(PyObject *lock)
{
    int value = 0;
    /* Both types have it first. */
    return sem_getvalue(((struct lock *)lock)->semaphore, &value) != 0 || value > 0;
}

static bool is_own(PyObject *lock)
{
    const struct rlock *rlock = (struct rlock *)lock;
    return rlock->count > 0 && rlock->owner == PyThread_get_thread_ident();
}

/* Locks of other interpreters may have another GIL, which orders nothing here. */
static bool is_elsewhere(void) { return PyThreadState_Get()->interp != threads_interpreter(); }

struct wait {
    PyObject *lock;
    struct waiter waiter;
    struct thread *thread;
    uint64_t began;
    uint32_t process;
};

static void begin(struct wait *wait, PyObject *lock)
{
    wait->lock = lock;
    wait->process = process;
    wait->thread = threads_own();
    wait->began = kernel_monotonic();
    contention_here(&wait->waiter);
    wait->waiter.thread = wait->thread ? wait->thread->key : 0;
    waiters_begin(lock, wait->waiter.at, wait->began);
    if (wait->thread)
        lock_mark_begin(&wait->thread->lock_mark, wait->began, wait->waiter.at, wait->waiter.label);
    contention_counts.own_ns += kernel_monotonic() - wait->began;
}

static void end(struct wait *wait, const PyObject *result)
{
    if (wait->process != process)
        return; /* a signal handler has forked meanwhile, and this is the child */
    uint64_t now = kernel_monotonic(), waited = now - wait->began;
    struct release release;
    uint64_t late = waiters_end(wait->lock, wait->began, now, &release);
    /* Unless it has been forgotten since. */
    if (wait->thread && wait->thread->key == wait->waiter.thread)
        lock_mark_end(&wait->thread->lock_mark, now);
    if (waited < LEAST_WAIT_NS && (result == NULL || result != Py_True))
        return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    contention_waited(&wait->waiter, waited);
    /* Who waited in vain has seen releases that were for others. */
    moments_note(&wait->waiter, late && result != NULL && result != Py_False ? release.thread : 0, now, waited);
    if (late)
        contention_released_late(&release, late);
    PyErr_Restore(type, value, trace);
    contention_counts.own_ns += kernel_monotonic() - now;
}

static void note_release(PyObject *lock)
{
    struct known_at at;
    uint64_t now = kernel_monotonic(), waited = waiters_take(lock, now, &at);
    if (waited) {
        struct release release = contention_released(waited, at);
        waiters_released(lock, &release);
        contention_counts.own_ns += kernel_monotonic() - now;
    }
}

/* What is no plain number may be anything: the original asks it, and its time tells. */
static bool is_false(PyObject *argument)
{
    int overflow;
    return PyLong_Check(argument) && PyLong_AsLongAndOverflow(argument, &overflow) == 0 && overflow == 0;
}

/* Whether an acquire() with these arguments was told not to wait; an unusual way to say so is noticed by its time. */
static bool will_not_wait(PyObject *arguments, PyObject *keywords)
{
    if (PyTuple_GET_SIZE(arguments) > 0)
        return is_false(PyTuple_GET_ITEM(arguments, 0));
    if (keywords == NULL)
        return false;
    PyObject *blocking = PyDict_GetItemString(keywords, "blocking");
    return blocking != NULL && is_false(blocking);
}

/* -- methods ------------------------------------------------------------------------------------------------------- */

enum way { ACQUIRE, ACQUIRE_RESTORE, RELEASE, RELEASE_SAVE, JOIN };
struct method {
    PyTypeObject **type;
    const char *name;
    enum way way;
    PyMethodDef *definition; /* NULL until it is found */
    PyCFunction original, ours;
};

#define ORIGINAL_WITH_KEYWORDS(method) ((PyCFunctionWithKeywords)(void (*)(void))(method).original)

/* As the originals take it. To ask whether it is free and then to call them would not do: who waits takes it in between. */
static bool take(PyObject *lock, bool is_rlock)
{
    if (sem_trywait(((struct lock *)lock)->semaphore) != 0)
        return false;
    if (is_rlock) {
        ((struct rlock *)lock)->owner = PyThread_get_thread_ident();
        ((struct rlock *)lock)->count = 1;
    }
    else
        ((struct lock *)lock)->locked = 1;
    return true;
}

static PyObject *acquire(const struct method *method, PyObject *lock, PyObject *arguments, PyObject *keywords)
{
    PyCFunctionWithKeywords original = ORIGINAL_WITH_KEYWORDS(*method);
    bool is_rlock = method->type == &rlock_type, plain = PyTuple_GET_SIZE(arguments) == 0 && keywords == NULL;
    if ((is_rlock && is_own(lock)) || is_elsewhere())
        return original(lock, arguments, keywords);
    if (plain && take(lock, is_rlock))
        Py_RETURN_TRUE;
    /* With arguments it may have to refuse them; should whoever waits take it first now, looks see the wait. */
    if (!plain && (is_free(lock) || will_not_wait(arguments, keywords)))
        return original(lock, arguments, keywords);
    struct wait wait;
    begin(&wait, lock);
    PyObject *result = original(lock, arguments, keywords);
    end(&wait, result);
    return result;
}

/* _acquire_restore() and a thread's join(): what is over at once was no wait. */
static PyObject *wait_in(const struct method *method, PyObject *lock, PyObject *argument)
{
    if (is_elsewhere())
        return method->original(lock, argument);
    struct wait wait;
    begin(&wait, lock);
    PyObject *result = method->original(lock, argument);
    end(&wait, result);
    return result;
}

static PyObject *release(const struct method *method, PyObject *lock, PyObject *arguments)
{
    bool is_rlock = method->type == &rlock_type;
    bool ends = is_rlock ? is_own(lock) && (method->way == RELEASE_SAVE || ((struct rlock *)lock)->count == 1) : !is_free(lock);
    if (ends && !is_elsewhere())
        note_release(lock);
    return method->original(lock, arguments);
}

/* One function for each method: a method's function is told which lock, but not which method it is. */
#define METHODS (HAS_HANDLES ? 13 : 12)
static struct method methods[13];
#define LOCK_ACQUIRE(number)                                                                                           \
    static PyObject *ours_##number(PyObject *lock, PyObject *arguments, PyObject *keywords)                            \
    {                                                                                                                  \
        return acquire(&methods[number], lock, arguments, keywords);                                                   \
    }
#define LOCK_OTHER(number, way)                                                                                        \
    static PyObject *ours_##number(PyObject *lock, PyObject *arguments) { return way(&methods[number], lock, arguments); }
LOCK_ACQUIRE(0)
LOCK_ACQUIRE(1)
LOCK_ACQUIRE(2)
LOCK_OTHER(3, release)
LOCK_OTHER(4, release)
LOCK_OTHER(5, release)
LOCK_ACQUIRE(6)
LOCK_ACQUIRE(7)
LOCK_OTHER(8, release)
LOCK_OTHER(9, release)
LOCK_OTHER(10, release)
LOCK_OTHER(11, wait_in)
LOCK_OTHER(12, wait_in)

#define OURS(number) (PyCFunction)(void (*)(void))ours_##number
static struct method methods[13] = {
    {&lock_type, "acquire", ACQUIRE, NULL, NULL, OURS(0)},
    {&lock_type, "acquire_lock", ACQUIRE, NULL, NULL, OURS(1)},
    {&lock_type, "__enter__", ACQUIRE, NULL, NULL, OURS(2)},
    {&lock_type, "release", RELEASE, NULL, NULL, OURS(3)},
    {&lock_type, "release_lock", RELEASE, NULL, NULL, OURS(4)},
    {&lock_type, "__exit__", RELEASE, NULL, NULL, OURS(5)},
    {&rlock_type, "acquire", ACQUIRE, NULL, NULL, OURS(6)},
    {&rlock_type, "__enter__", ACQUIRE, NULL, NULL, OURS(7)},
    {&rlock_type, "release", RELEASE, NULL, NULL, OURS(8)},
    {&rlock_type, "__exit__", RELEASE, NULL, NULL, OURS(9)},
    {&rlock_type, "_release_save", RELEASE_SAVE, NULL, NULL, OURS(10)},
    {&rlock_type, "_acquire_restore", ACQUIRE_RESTORE, NULL, NULL, OURS(11)},
    {&handle_type, "join", JOIN, NULL, NULL, OURS(12)},
};

/* -- beginning and end --------------------------------------------------------------------------------------------- */

/* `_thread.lock` and `_thread.RLock`; a borrowed reference, or NULL without an exception. */
static PyTypeObject *find_type(PyObject *module, const char *name)
{
    PyObject *type = PyObject_GetAttrString(module, name);
    if (type == NULL)
        PyErr_Clear();
    bool good = type != NULL && PyType_Check(type);
    Py_XDECREF(type); /* the module keeps it, and so does every lock */
    return good ? (PyTypeObject *)type : NULL;
}

static bool find_method(struct method *method)
{
    PyObject *descriptor = *method->type ? PyDict_GetItemString((*method->type)->tp_dict, method->name) : NULL;
    if (descriptor == NULL || !Py_IS_TYPE(descriptor, &PyMethodDescr_Type))
        return false;
    PyMethodDef *definition = ((PyMethodDescrObject *)descriptor)->d_method;
    bool acquires = method->way == ACQUIRE;
    /* How it is called must be as our function is. */
    bool keywords = (definition->ml_flags & METH_KEYWORDS) != 0, fast = (definition->ml_flags & METH_FASTCALL) != 0;
    if (fast || keywords != acquires || (definition->ml_flags & METH_METHOD))
        return false;
    method->definition = definition;
    return true;
}

static bool tells(PyObject *lock, const char *method, bool free_after)
{
    PyObject *result = PyObject_CallMethod(lock, method, NULL);
    Py_XDECREF(result);
    return result != NULL && is_free(lock) == free_after;
}

/* Whether a lock of this type is one of ours: as large, free when it is new, and the semaphore says what becomes of it. */
static bool is_as_known(PyTypeObject *type, size_t size, PyObject *(*make)(PyObject *module), PyObject *module)
{
    PyObject *lock = type != NULL && (size_t)type->tp_basicsize == size ? make(module) : NULL;
    bool good = lock != NULL && Py_IS_TYPE(lock, type) && is_free(lock) && tells(lock, "acquire", false);
    if (good && type == rlock_type)
        good = is_own(lock) && ((struct rlock *)lock)->count == 1 && tells(lock, "acquire", false) && ((struct rlock *)lock)->count == 2 &&
               tells(lock, "release", false);
    good = good && tells(lock, "release", true);
    Py_XDECREF(lock);
    PyErr_Clear();
    return good;
}

static PyObject *make_lock(PyObject *module) { return PyObject_CallMethod(module, "allocate_lock", NULL); }
static PyObject *make_rlock(PyObject *module) { return PyObject_CallMethod(module, "RLock", NULL); }

static bool find_all(void)
{
    PyObject *module = PyImport_ImportModule("_thread");
    if (module == NULL) {
        PyErr_Clear();
        return false;
    }
    lock_type = find_type(module, "LockType");
    rlock_type = find_type(module, "RLock");
    handle_type = HAS_HANDLES ? find_type(module, "_ThreadHandle") : NULL;
    bool good = is_as_known(lock_type, sizeof(struct lock), make_lock, module) &&
                is_as_known(rlock_type, sizeof(struct rlock), make_rlock, module);
    for (unsigned number = 0; good && number < METHODS; number++)
        good = find_method(&methods[number]);
    Py_DECREF(module);
    return good;
}

bool locks_observe(void)
{
    if (observed)
        return true;
    if (methods[METHODS - 1].definition == NULL && !find_all())
        return false;
    for (unsigned number = 0; number < METHODS; number++) {
        methods[number].original = methods[number].definition->ml_meth;
        methods[number].definition->ml_meth = methods[number].ours;
    }
    return observed = true;
}

void locks_leave(void)
{
    for (unsigned number = 0; observed && number < METHODS; number++)
        /* Who has put another function there meanwhile calls ours, and ours the original. */
        if (methods[number].definition->ml_meth == methods[number].ours)
            methods[number].definition->ml_meth = methods[number].original;
    observed = false;
}

bool locks_observed(void) { return observed; }

void locks_abandon(void)
{
    process++;
    waiters_clear();
}
