#include "threads.h"
#include "kernel.h"
#include "layout.h"
#include "natives.h"
#include "ring.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INDEX_BITS 12 /* MAX_THREADS */
#define MOST_STATES 65536
#define MOST_FILES 128
/* So long the list may take to have a state that was made; after that it has ended. */
#define LINK_NS 200000000ull
#define UNSEEN_PERIODS 3 /* CPU time that a thread may have used before it was found, and its first sample gets */

static PyInterpreterState *interpreter;
static struct thread *threads;
static struct raw_stack *own_stacks;
static _Atomic unsigned used; /* entries that have ever been used */
static uint32_t next_key = 1;
static uint64_t known_id;      /* thread states with a smaller id have been looked at */
static _Atomic uint64_t made;  /* threads_made() when that was */
static _Atomic bool unfinished;
static uint64_t missing, missing_since; /* the newest state that was made and not in the list, and when that was first seen */
static uint64_t period;
static unsigned unarmed;
static uint64_t settled;
static unsigned files_kept;
static struct newcomer newcomers[MAX_THREADS];
static unsigned newcomer_count;
static uint32_t ended[MAX_THREADS];
static unsigned ended_count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Memory that only becomes resident where it is used. */
static void *from_kernel(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool threads_init(PyInterpreterState *observed)
{
    interpreter = observed;
    if (threads == NULL)
        threads = from_kernel(MAX_THREADS * sizeof *threads);
    if (own_stacks == NULL)
        own_stacks = from_kernel(MAX_THREADS * sizeof *own_stacks);
    return threads != NULL && own_stacks != NULL;
}

struct raw_stack *threads_own_stack(const struct thread *thread) { return &own_stacks[thread - threads]; }

PyInterpreterState *threads_interpreter(void) { return interpreter; }
void threads_lock(void) { pthread_mutex_lock(&mutex); }
bool threads_try_lock(void) { return pthread_mutex_trylock(&mutex) == 0; }
void threads_unlock(void) { pthread_mutex_unlock(&mutex); }
bool threads_changed(void)
{
    return atomic_load_explicit(&unfinished, memory_order_relaxed) || threads_made(interpreter) != atomic_load(&made);
}

struct thread *threads_next(struct thread *thread)
{
    for (unsigned index = thread ? (unsigned)(thread - threads) + 1 : 0; index < used; index++)
        if (atomic_load_explicit(&threads[index].live, memory_order_relaxed))
            return &threads[index];
    return NULL;
}

/* -- timers ------------------------------------------------------------------------------------------------------ */

static void disarm(struct thread *thread)
{
    if (thread->timer >= 0)
        kernel_timer_delete(thread->timer);
    thread->timer = -1;
}

static void arm(struct thread *thread)
{
    if (period == 0 || thread->ours)
        return;
    if (thread->timer < 0) {
        uintptr_t value = ((uintptr_t)thread->key << INDEX_BITS) | (uintptr_t)(thread - threads);
        thread->timer = kernel_timer_create(thread->tid, thread->tid, value);
    }
    /* The first one at a random moment, or all threads that begin together would be sampled together. */
    uint64_t first = 1 + kernel_random() % period;
    if (thread->timer < 0 || !kernel_timer_set(thread->timer, first, period))
        unarmed++;
}

unsigned threads_set_period(uint64_t period_ns)
{
    period = period_ns;
    unarmed = 0;
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;) {
        if (period == 0)
            disarm(thread);
        else
            arm(thread);
    }
    return unarmed;
}

struct thread *threads_by_signal(uintptr_t value)
{
    struct thread *thread = &threads[value & (MAX_THREADS - 1)];
    bool same = atomic_load_explicit(&thread->live, memory_order_acquire) && thread->key == (uint32_t)(value >> INDEX_BITS);
    return same ? thread : NULL;
}

/* -- coming and going -------------------------------------------------------------------------------------------- */

void threads_forget(struct thread *thread)
{
    disarm(thread);
    uint64_t charged = atomic_load(&thread->charged_ns);
    settled += charged > thread->settled_ns ? charged - thread->settled_ns : 0;
    if (thread->state_file >= 0) {
        close(thread->state_file);
        files_kept--;
    }
    if (ended_count < MAX_THREADS)
        ended[ended_count++] = thread->key;
    atomic_store_explicit(&thread->live, false, memory_order_release);
}

unsigned threads_take_new(struct newcomer *into, unsigned room)
{
    unsigned count = newcomer_count < room ? newcomer_count : room;
    memcpy(into, newcomers, count * sizeof *into);
    newcomer_count -= count;
    memmove(newcomers, newcomers + count, newcomer_count * sizeof *newcomers);
    return count;
}

unsigned threads_take_ended(uint32_t *into, unsigned room)
{
    unsigned count = ended_count < room ? ended_count : room;
    memcpy(into, ended, count * sizeof *into);
    ended_count -= count;
    memmove(ended, ended + count, ended_count * sizeof *ended);
    return count;
}

uint64_t threads_settle(struct thread *thread)
{
    uint64_t clock = kernel_thread_cpu(thread->tid);
    if (clock == 0)
        /* It has ended: what it used last is not known, but what has been handed out already must not be again. */
        clock = atomic_load(&thread->charged_ns);
    if (clock < thread->settled_ns)
        return 0;
    settled += clock - thread->settled_ns;
    thread->settled_ns = clock;
    /* The next look measures from its own last one: what is handed out now must not be charged again then. */
    thread->carried_ns = (int64_t)(thread->clock_ns - clock);
    uint64_t charged = atomic_exchange(&thread->charged_ns, clock);
    return clock > charged ? clock - charged : 0;
}

uint64_t threads_take_settled(void)
{
    uint64_t taken = settled;
    settled = 0;
    return taken;
}

bool threads_keep_file(struct thread *thread, int file)
{
    if (files_kept == MOST_FILES)
        return false;
    files_kept++;
    thread->state_file = file;
    return true;
}

void threads_clear(void)
{
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
        threads_forget(thread);
    newcomer_count = ended_count = 0;
    natives_forget();
    known_id = 0;
    settled = 0;
}

void threads_abandon(void)
{
    /* Whoever held the lock is not in a forked child. */
    pthread_mutex_init(&mutex, NULL);
    for (unsigned index = 0; index < used; index++) {
        if (atomic_exchange(&threads[index].live, false) && threads[index].state_file >= 0)
            close(threads[index].state_file);
    }
    files_kept = 0;
    used = newcomer_count = ended_count = 0;
    natives_forget();
    settled = 0;
    known_id = 0;
    period = 0;
    atomic_store(&made, 0);
}

void threads_mark_own(pid_t tid)
{
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
        if (thread->tid == tid && !thread->ours) {
            thread->ours = true;
            disarm(thread);
        }
}

static struct thread *by_tid(pid_t tid)
{
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
        if (thread->tid == tid)
            return thread;
    return NULL;
}

struct thread *threads_own(void)
{
    static _Thread_local struct thread *own;
    static _Thread_local uint32_t own_key;
    if (own != NULL && atomic_load_explicit(&own->live, memory_order_acquire) && own->key == own_key)
        return own;
    own = NULL;
    pid_t tid = kernel_gettid();
    /* Without the lock: whoever looks may have it for long, and a wait that is not marked would be seen by looks, too. Nobody
     * forgets the entry of a thread that lives, and if another one has changed meanwhile its key tells. */
    for (unsigned index = 0; index < used; index++) {
        struct thread *thread = &threads[index];
        if (atomic_load_explicit(&thread->live, memory_order_acquire) && thread->tid == tid) {
            own = thread;
            own_key = thread->key;
            break;
        }
    }
    return own;
}

static struct thread *free_entry(void)
{
    for (unsigned index = 0; index < used; index++)
        if (!atomic_load_explicit(&threads[index].live, memory_order_relaxed))
            return &threads[index];
    return used < MAX_THREADS ? &threads[used++] : NULL;
}

/* The copied part of a thread state, if there is one of this interpreter at this address. */
static bool read_state(uintptr_t address, PyThreadState *copied)
{
    return address && kernel_read(address, copied, TSTATE_SIZE) && copied->interp == interpreter;
}

static void enter(uintptr_t address, const PyThreadState *state, uint64_t clock, uint64_t now)
{
    struct thread *thread = free_entry();
    if (thread == NULL)
        return;
    thread->ours = false;
    thread->key = next_key++;
    thread->tid = (pid_t)state->native_thread_id;
    thread->ident = state->thread_id;
    thread->state = address;
    thread->state_id = state->id;
    thread->timer = -1;
    uint64_t before = natives_used(thread->tid, clock);
    atomic_store(&thread->charged_ns, before); /* its first sample gets what it has used before it was found */
    if (period && clock - before > UNSEEN_PERIODS * period) {
        struct record *record = ring_reserve(RECORD_CPU, 1);
        if (record != NULL) {
            record->places[0] = (struct place){SPECIAL_NOT_SEEN, 0};
            record->thread = thread->key;
            record->time_ns = now;
            record->cpu_ns = clock - before;
            ring_commit(record);
            atomic_store(&thread->charged_ns, clock);
        }
    }
    thread->clock_ns = clock;
    thread->looked_ns = thread->since_ns = thread->ran_ns = now;
    thread->carried_ns = 0;
    thread->unlooked_ns = 0;
    thread->seen = false;
    thread->settled_ns = before;
    lock_mark_clear(&thread->lock_mark);
    thread->locks_looked_ns = thread->locks_since_ns = 0;
    thread->state_file = -1;
    if (newcomer_count < MAX_THREADS)
        newcomers[newcomer_count++] = (struct newcomer){thread->key, thread->tid, thread->ident};
    atomic_store_explicit(&thread->live, true, memory_order_release);
    arm(thread);
}

/* False when the thread is not ready to be observed. */
static bool inspect(uintptr_t address, const PyThreadState *state, uint64_t now)
{
    pid_t tid = (pid_t)state->native_thread_id;
    uint64_t clock = tid > 0 ? kernel_thread_cpu(tid) : 0;
    if (clock == 0)
        return tid > 0; /* without a number it has not begun; with one it has ended already */
    struct thread *known = by_tid(tid);
    if (known != NULL && known->state == address && known->state_id == state->id)
        return true;
    if (known != NULL) {
        PyThreadState other;
        if (read_state(known->state, &other) && other.id == known->state_id && (pid_t)other.native_thread_id == tid)
            return false; /* made by that thread for one that has not begun: 3.11 gives it the maker's number first */
        if (known->ident == state->thread_id && clock >= atomic_load(&known->charged_ns)) {
            /* The same thread, come to Python again (PyGILState_Ensure makes a new state each time). */
            known->state = address;
            known->state_id = state->id;
            known->seen = false; /* not in this state */
            return true;
        }
        threads_forget(known); /* it has ended, and the system has given its number to a new one */
    }
    enter(address, state, clock, now);
    return true;
}

void threads_enlist(const PyThreadState *state, uint64_t now)
{
    if (state->interp != interpreter || !inspect((uintptr_t)state, state, now) || state->id != known_id)
        return;
    /* The newest of all, and all others are known: nobody has to look for it. */
    known_id++;
    if (threads_made(interpreter) == state->id)
        atomic_store(&made, state->id);
}

/* A state gets its number before it is put at the head of the list. */
static bool is_late(uint64_t head, uint64_t count, uint64_t now)
{
    if (head >= count)
        return false;
    if (missing != count) {
        missing = count;
        missing_since = now;
    }
    return now - missing_since < LINK_NS;
}

bool threads_discover(uint64_t now)
{
    uint64_t count = threads_made(interpreter), waiting = UINT64_MAX, newest = 0, head = 0;
    bool whole = true;
    static uintptr_t found[MOST_STATES];
    unsigned steps = 0;
    PyThreadState state;
    /* Newest first, without the lock of the list: each step is read through the kernel and checked, and a list that
     * changed under the eyes is read again the next time. */
    for (uintptr_t address = newest_thread(interpreter); address != 0 && steps < MOST_STATES; steps++) {
        if (!read_state(address, &state)) {
            whole = false;
            break;
        }
        if (head == 0)
            head = state.id;
        if (state.id < known_id)
            break;
        if (newest == 0)
            newest = state.id;
        found[steps] = address;
        address = (uintptr_t)state.next;
    }
    /* Oldest first: whoever has made a thread that has not begun must be known before it, see inspect(). */
    while (steps-- > 0) {
        if (!read_state(found[steps], &state))
            whole = false;
        else if (!inspect(found[steps], &state, now) && state.id < waiting)
            waiting = state.id;
    }
    if (waiting != UINT64_MAX)
        known_id = waiting;
    else if (whole && newest != 0)
        known_id = newest + 1;
    atomic_store(&made, count);
    atomic_store(&unfinished, !whole || waiting != UINT64_MAX || is_late(head, count, now));
    return !atomic_load(&unfinished);
}
