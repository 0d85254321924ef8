#include "contention.h"
#include "codes.h"
#include "kernel.h"
#include "labels.h"
#include "layout.h"
#include "lists.h"
#include "looks.h"
#include "table.h"
#include "threads.h"
#include "walk.h"

#include <string.h>

#define SLOTS 4096u /* a power of two */
#define MOST_SUMS (SLOTS / 4 * 3)

struct sum {
    bool is_release;
    uint32_t thread, stack, waiter;
    uint64_t label_number;
    struct label_parts label; /* strong references, or NULL */
    double count, delay_ns;
};

struct contention_counts contention_counts;
static uint64_t block_rate = 1, mutex_fraction = 1;
static _Atomic uint32_t table_number = 1;
/* Besides one for waits and one for releases that find no room. Side by side, so that few lines of memory are in use. */
static struct sum sums[MOST_SUMS + 2];
static uint16_t slots[SLOTS]; /* where in `sums`, plus 1; 0: free. Found by linear probing. */
static uint32_t sum_count;

void contention_set_rates(uint64_t block_rate_ns, uint64_t fraction)
{
    block_rate = block_rate_ns;
    mutex_fraction = fraction;
}

/* Of its own: kernel_random() is for whoever has the lock of threads. */
static uint64_t random_below(uint64_t bound)
{
    static uint64_t state = 0x9E3779B97F4A7C15ull; /* xorshift64*: Vigna, https://doi.org/10.1145/2845077 */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return ((state * 2685821657736338717ull) >> 16) % bound;
}

/* -- sums ---------------------------------------------------------------------------------------------------------- */

/* Its slot, or the free one where it would be. */
static uint16_t *find(const struct sum *key)
{
    uint64_t hash = key->stack * 0x9E3779B97F4A7C15ull ^ key->waiter * 0xC2B2AE3D27D4EB4Full ^
                    key->thread * 0x165667B19E3779F9ull ^ key->label_number * 0x27D4EB2F165667C5ull ^ key->is_release;
    uint32_t slot = (uint32_t)(hash >> 32) & (SLOTS - 1);
    for (; slots[slot]; slot = (slot + 1) & (SLOTS - 1)) {
        const struct sum *sum = &sums[slots[slot] - 1];
        if (sum->is_release == key->is_release && sum->thread == key->thread && sum->stack == key->stack &&
            sum->waiter == key->waiter && sum->label_number == key->label_number)
            break;
    }
    return &slots[slot];
}

static void add(struct sum key, struct label_ref label, double count, double delay_ns)
{
    key.label_number = label.number;
    uint16_t *slot = find(&key);
    if (!*slot && sum_count >= MOST_SUMS) {
        contention_counts.dropped++;
        key.stack = key.waiter = NO_STACK;
        key.thread = 0;
        key.label_number = label.number = 0;
        slot = find(&key);
    }
    if (!*slot) {
        key.label = label.number ? label_parts(label) : (struct label_parts){NULL, NULL};
        sums[sum_count] = key;
        *slot = (uint16_t)++sum_count;
    }
    struct sum *sum = &sums[*slot - 1];
    sum->count += count;
    sum->delay_ns += delay_ns;
}

/* -- where the calling thread is ----------------------------------------------------------------------------------- */

static uint32_t stack_here(const PyThreadState *state)
{
    /* One for all: with the GIL, and nothing in between lets go of it. */
    static struct {
        struct record record;
        struct place places[MAX_DEPTH + 1];
    } here;
    static struct raw_stack stack;
    bool lost;
    walk_here(state, &stack);
    here.record.depth = (uint16_t)stack.depth;
    here.record.codes_freed = codes_freed();
    memcpy(here.places, stack.places, stack.depth * sizeof *stack.places);
    return table_stack(&here.record, &lost);
}

void contention_here(struct waiter *waiter)
{
    const PyThreadState *state = PyThreadState_Get();
    /* A release needs it now, and so does a look at who waits. Otherwise it is taken after the wait, and only of one that is long
     * enough. */
    waiter->at = mutex_fraction || looks_interval() ? (struct known_at){stack_here(state), table_number} : (struct known_at){NO_STACK, 0};
    waiter->label = label_of_own((uintptr_t)state->context);
}

uint32_t contention_stack(const struct waiter *waiter)
{
    return waiter->at.table == table_number ? waiter->at.stack : stack_here(PyThreadState_Get());
}

uint32_t contention_table(void) { return atomic_load(&table_number); }

uint32_t contention_still(struct known_at at) { return at.table == table_number ? at.stack : NO_STACK; }

void contention_waited(const struct waiter *waiter, uint64_t waited)
{
    uint64_t rate = block_rate;
    if (rate == 0 || (waited < rate && random_below(rate) >= waited))
        return;
    /* As saveblockevent() in Go's runtime/mprof.go: a short one stands for others that were not recorded. */
    bool is_short = waited < rate;
    struct sum key = {.thread = waiter->thread, .stack = contention_stack(waiter), .waiter = NO_STACK};
    add(key, waiter->label, is_short ? (double)rate / (double)waited : 1, (double)(is_short ? rate : waited));
    contention_counts.waits++;
}

static void add_release(const struct release *release, uint64_t count, uint64_t waited)
{
    struct sum key = {.is_release = true, .thread = release->thread, .stack = contention_still(release->at), .waiter = release->waiter};
    add(key, release->label, (double)(release->weight * count), (double)release->weight * (double)waited);
}

struct release contention_released(uint64_t waited, struct known_at at)
{
    const struct thread *thread = threads_own();
    struct release release = {.thread = thread ? thread->key : 0};
    if (mutex_fraction == 0 || (mutex_fraction > 1 && random_below(mutex_fraction) != 0))
        return release;
    struct waiter releaser;
    contention_here(&releaser);
    release = (struct release){releaser.at, release.thread, contention_still(at), releaser.label, mutex_fraction};
    add_release(&release, 1, waited);
    contention_counts.releases++;
    return release;
}

void contention_released_late(const struct release *release, uint64_t late)
{
    /* In a new table its waiter has another number, and it would be one of an unknown stack. */
    if (release->weight && release->at.table == table_number)
        add_release(release, 0, late);
}

/* -- for Python ---------------------------------------------------------------------------------------------------- */

static PyObject *number_of(uint32_t stack) { return PyLong_FromLong(stack == NO_STACK ? -1L : (long)stack); }

/* All fields, also after one that failed: the label's references are given away. */
static int append_sum(PyObject *list, const struct sum *sum)
{
    int failed = list_append(list, PyBool_FromLong(sum->is_release)) | list_append(list, PyLong_FromUnsignedLong(sum->thread));
    failed |= list_append(list, number_of(sum->stack)) | list_append(list, number_of(sum->waiter));
    failed |= list_append(list, PyFloat_FromDouble(sum->count)) | list_append(list, PyFloat_FromDouble(sum->delay_ns));
    return failed | label_append(list, sum->label);
}

PyObject *contention_take(void)
{
    /* Making objects may run anything, which may add to the sums: they are taken out first. */
    static struct sum taken[MOST_SUMS + 2];
    static bool taking;
    PyObject *list = PyList_New(0);
    if (list == NULL || taking)
        return list;
    taking = true;
    uint32_t count = sum_count;
    memcpy(taken, sums, count * sizeof *sums);
    if (count)
        memset(slots, 0, sizeof slots);
    sum_count = 0;
    int failed = 0;
    for (uint32_t number = 0; number < count; number++)
        failed |= append_sum(list, &taken[number]);
    taking = false;
    if (failed)
        Py_CLEAR(list);
    return list;
}

bool contention_taken(void) { return sum_count == 0; }
void contention_new_table(void) { table_number++; }

void contention_clear(void)
{
    PyObject *list = contention_take();
    if (list == NULL)
        PyErr_Clear();
    Py_XDECREF(list);
}
