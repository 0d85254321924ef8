#include "codes.h"
#include "kernel.h"

#define KNOWN_SLOTS 8192u /* a power of two */
/* No object has more references; the first word of a freed block is a pointer, which is larger, or zero. */
#define MOST_REFERENCES 0xFFFFFFFFull

static _Atomic uintptr_t known[KNOWN_SLOTS];
#define FREED_KEPT 4096u /* a power of two */
static _Atomic uint64_t freed_count;
static uintptr_t freed[FREED_KEPT];
static void (*on_free)(uintptr_t code);

static unsigned slot_of(uintptr_t address) { return (unsigned)((address >> 4) ^ (address >> 17)) & (KNOWN_SLOTS - 1); }

uint64_t codes_freed(void) { return atomic_load_explicit(&freed_count, memory_order_acquire); }

static void note_freed(uintptr_t address)
{
    uint64_t count = atomic_load_explicit(&freed_count, memory_order_relaxed);
    freed[count & (FREED_KEPT - 1)] = address;
    atomic_store_explicit(&freed_count, count + 1, memory_order_release);
}

bool code_freed_since(uintptr_t address, uint64_t since)
{
    uint64_t count = codes_freed();
    if (count - since > FREED_KEPT)
        return true;
    for (; since < count; since++)
        if (freed[since & (FREED_KEPT - 1)] == address)
            return true;
    return false;
}

static void code_freed(uintptr_t code)
{
    /* Whoever has taken this code from a running stack has left it in the ring by now: to be resolved while it can be. */
    on_free(code);
    note_freed(code);
    uintptr_t expected = code;
    atomic_compare_exchange_strong(&known[slot_of(code)], &expected, 0);
}

#if PY_VERSION_HEX >= 0x030C0000

static int watch(PyCodeEvent event, PyCodeObject *code)
{
    if (event == PY_CODE_EVENT_DESTROY)
        code_freed((uintptr_t)code);
    return 0;
}

bool codes_init(void (*before_free)(uintptr_t code))
{
    if (on_free == NULL) {
        if (PyCode_AddWatcher(watch) < 0)
            return false;
        on_free = before_free;
    }
    return true;
}

#else

/* Python 3.11 tells nobody when it frees a code object, so its own function is called after ours. */
static destructor free_code;

static void free_code_after_notice(PyObject *code)
{
    Py_SET_REFCNT(code, 1); /* as 3.12 does for its watchers: to be read, it has to look alive */
    code_freed((uintptr_t)code);
    Py_SET_REFCNT(code, 0);
    free_code(code);
}

bool codes_init(void (*before_free)(uintptr_t code))
{
    if (on_free == NULL) {
        on_free = before_free;
        free_code = PyCode_Type.tp_dealloc;
        PyCode_Type.tp_dealloc = free_code_after_notice;
    }
    return true;
}

#endif

bool code_is_known(uintptr_t address)
{
    return atomic_load_explicit(&known[slot_of(address)], memory_order_relaxed) == address;
}

bool code_is_alive(uintptr_t address)
{
    if (code_is_known(address))
        return true;
    if (address < 4096 || address % sizeof(void *) || !kernel_readable(address, sizeof(PyCodeObject)))
        return false;
    const PyObject *object = (const PyObject *)address;
    return Py_TYPE(object) == &PyCode_Type && Py_REFCNT(object) > 0 && (uint64_t)Py_REFCNT(object) <= MOST_REFERENCES;
}

void code_remember(uintptr_t address)
{
    atomic_store_explicit(&known[slot_of(address)], address, memory_order_relaxed);
}

void code_forget_all(void)
{
    for (unsigned slot = 0; slot < KNOWN_SLOTS; slot++)
        atomic_store_explicit(&known[slot], 0, memory_order_relaxed);
}
