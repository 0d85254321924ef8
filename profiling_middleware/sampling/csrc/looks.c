#include "looks.h"
#include "codes.h"
#include "contention.h"
#include "kernel.h"
#include "reason.h"
#include "ring.h"
#include "table.h"
#include "threads.h"
#include "walk.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* CPU time that may go unnoticed between two looks: less than the cheapest wake-up of a thread, which is some 2.5 µs from one
 * wait of Python's to the next. More than the clocks disagree while nobody runs. */
#define SLACK_NS 1000
/* A thread that has not run for so long is asked for its clock only when the process ran more than the others did. */
#define HOT_NS 1000000000ull
/* CPU time may wait so many looks for a stack that is surely working. */
#define MOST_CARRIED_LOOKS 10

struct looks_counts looks_counts;
static _Atomic bool charges_cpu, asks_why;
static _Atomic uint64_t interval;
static uint64_t accounted_ns;
static uint64_t quiet_ns; /* until when whoever was not asked for its clock has not run */
static struct raw_stack stack;
static struct thread *moved[MAX_THREADS];

/* -- what a thread is doing ------------------------------------------------------------------------------------- */

/* The system call it waits in with its arguments, or "running"; NULL where the system does not tell. Until the next call. */
static const char *read_call(struct thread *thread)
{
    static char text[48];
    int file = thread->state_file;
    if (file < 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)thread->tid);
        file = kernel_open(path);
    }
    ssize_t size = file >= 0 ? pread(file, text, sizeof text - 1, 0) : -1;
    if (file >= 0 && thread->state_file < 0 && !threads_keep_file(thread, file))
        close(file);
    if (size <= 0) {
        looks_counts.unread_states++;
        return NULL;
    }
    text[size] = '\0';
    return text;
}

/* Whether it is on a processor or about to be; true as well where the system does not tell. -1 is a page fault, which is work. */
static bool runs(const char *call) { return call == NULL || call[0] == 'r' || call[0] == '-'; }

/* Where threads have been seen waiting. One that is seen running there has most likely just been woken, by the same tick
 * as this thread, and has worked elsewhere. */
#define WAIT_SLOTS 1024u
static struct place waits[WAIT_SLOTS];

static struct place *wait_slot(struct place leaf)
{
    return &waits[((leaf.code >> 4) ^ (leaf.code >> 14) ^ (uint32_t)leaf.offset) & (WAIT_SLOTS - 1)];
}

static bool waits_at(struct place leaf)
{
    const struct place *known = wait_slot(leaf);
    return known->code == leaf.code && known->offset == leaf.offset;
}

/* From now on it is known where the thread was until `when`. */
static void know(struct thread *thread, uint64_t when)
{
    uint64_t passed = when - thread->looked_ns, waits = lock_mark_waited(&thread->lock_mark, when) - thread->locks_looked_ns;
    /* Not more than that: it may have come back from its lock since. */
    thread->locks_looked_ns += waits < passed ? waits : passed;
    thread->looked_ns = when;
}

/* What is read together with a stack. */
struct reading {
    uint64_t codes_freed;
    struct label_ref label;
    enum reason reason;
    uint32_t table; /* of a stack that was known */
};

/* How long it has not run since it was looked at. */
static uint64_t waited_since(const struct thread *thread, uint64_t now)
{
    uint64_t passed = now - thread->looked_ns;
    return passed > thread->unlooked_ns ? passed - thread->unlooked_ns : 0;
}

static bool write_record(struct thread *thread, enum record_kind kind, uint32_t depth, uint64_t now, uint64_t cpu,
                         struct reading reading)
{
    struct record *record = ring_reserve(kind, depth);
    if (record == NULL) {
        looks_counts.no_room++;
        return false;
    }
    memcpy(record->places, stack.places, depth * sizeof *stack.places);
    record->thread = thread->key;
    record->time_ns = now;
    record->cpu_ns = cpu;
    record->waited_ns = thread->looked_ns - thread->since_ns;
    /* At least something: so it is known to have been looked at, and not to have noted its stack itself. */
    record->seen_ns = depth ? 1 + waited_since(thread, now) : 0;
    record->locks_waited_ns = thread->locks_looked_ns - thread->locks_since_ns;
    record->locks_seen_ns = 0;
    record->reason = (uint32_t)reading.reason;
    record->codes_freed = reading.codes_freed;
    record->table = reading.table;
    record->label = reading.label;
    if (depth) {
        uint64_t before = thread->locks_looked_ns;
        know(thread, now);
        thread->unlooked_ns = 0;
        record->locks_seen_ns = thread->locks_looked_ns - before;
    }
    ring_commit(record);
    thread->since_ns = thread->looked_ns;
    thread->locks_since_ns = thread->locks_looked_ns;
    return true;
}

/* Hands out what a thread has waited where it was seen last. */
static void write_stay(struct thread *thread)
{
    if (thread->looked_ns > thread->since_ns)
        write_record(thread, RECORD_STAY, 0, thread->looked_ns, 0, (struct reading){0});
}

/* Hands out what a thread that runs has waited in between: where it works. */
static void write_running(struct thread *thread, uint64_t now)
{
    stack.depth = 1;
    stack.places[0] = (struct place){SPECIAL_RUNNING, 0};
    write_record(thread, RECORD_LOOK, 1, now, 0, (struct reading){0});
}

/* Whether the thread waits for a lock, and has said where before it began to: that costs a tenth of reading it. */
static bool has_told(const struct thread *thread, struct reading *reading)
{
    struct known_at at;
    if (!lock_mark_place(&thread->lock_mark, &at, &reading->label) || at.stack == NO_STACK || at.table != contention_table())
        return false;
    stack.depth = 1;
    stack.places[0] = (struct place){SPECIAL_KNOWN, (int32_t)at.stack};
    reading->table = at.table;
    return true;
}

/* Where the thread is. What cannot be read or written now is handed out with the next look, which then asks everybody:
 * this one may not run again for long. */
static void look_at(struct thread *thread, uint64_t now)
{
    struct reading reading = {.codes_freed = codes_freed()};
    uint64_t cpu = 0;
    bool charges = atomic_load(&charges_cpu), ran = charges && runs(read_call(thread));
    int64_t most_carried = MOST_CARRIED_LOOKS * (int64_t)atomic_load(&interval);
    thread->seen = false;
    bool told = !charges && has_told(thread, &reading);
    /* Who runs notes its own stack where there are timers for that. */
    enum walked walked = told ? WALK_DONE : walk_other(thread->tid, thread->state, charges, &stack, &reading.label);
    if (walked == WALK_RUNS) {
        write_running(thread, now);
        return;
    }
    if (walked == WALK_TORN) {
        looks_counts.torn++;
        accounted_ns = 0;
        return;
    }
    uint64_t read_at = kernel_monotonic();
    if (stack.depth == 0) {
        stack.depth = 1;
        stack.places[0] = (struct place){SPECIAL_NO_PYTHON, 0};
    }
    bool measured = told || lock_mark_waits(&thread->lock_mark);
    const char *call = ran || (!measured && atomic_load(&asks_why)) ? read_call(thread) : NULL;
    ran = ran && runs(call);
    if (measured || call != NULL)
        reading.reason = measured ? REASON_MEASURED : reason_of(call);
    if (charges && !ran)
        *wait_slot(stack.places[0]) = stack.places[0];
    if (ran && thread->carried_ns > 0 && (thread->carried_ns > most_carried || !waits_at(stack.places[0])))
        cpu = (uint64_t)thread->carried_ns;
    /* Not `now`: this thread may have been put aside in between, and found the other one elsewhere. */
    if (!write_record(thread, RECORD_LOOK, stack.depth, read_at, cpu, reading)) {
        accounted_ns = 0;
        return;
    }
    thread->carried_ns -= (int64_t)cpu;
    atomic_fetch_add(&thread->charged_ns, cpu);
    thread->seen = true;
}

/* -- one look ---------------------------------------------------------------------------------------------------- */

/* Whoever was not asked for its clock while nobody ran has stayed where it was. */
static void know_of_quiet(struct thread *thread)
{
    if (quiet_ns > thread->looked_ns)
        know(thread, quiet_ns);
}

static void forget(struct thread *thread)
{
    know_of_quiet(thread);
    if (atomic_load(&interval))
        write_stay(thread);
    threads_forget(thread);
}

void looks_forget_ended(void)
{
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
        if (kernel_thread_cpu(thread->tid) == 0)
            forget(thread);
}

static uint64_t take_clock(struct thread *thread, uint64_t clock, uint64_t now)
{
    uint64_t ran = clock - thread->clock_ns;
    thread->clock_ns = clock;
    thread->carried_ns += (int64_t)ran;
    thread->unlooked_ns += ran;
    if (ran)
        thread->ran_ns = now;
    return ran;
}

/* How much a thread has run since the last time; it joins `moved` if it has. */
static uint64_t measure(struct thread *thread, unsigned *count, uint64_t now)
{
    uint64_t clock = kernel_thread_cpu(thread->tid);
    if (clock == 0) {
        forget(thread);
        return 0;
    }
    know_of_quiet(thread);
    uint64_t ran = take_clock(thread, clock, now);
    if (ran == 0 && thread->seen) {
        know(thread, now);
        return 0;
    }
    moved[(*count)++] = thread;
    return ran;
}

void looks_look(uint64_t now)
{
    /* Without this thread's own, or each look would be a reason to look at everybody. */
    uint64_t process = kernel_process_cpu() - kernel_own_cpu();
    int64_t unseen = (int64_t)(process - accounted_ns);
    unsigned count = 0;
    looks_counts.looks++;
    if (unseen > SLACK_NS) {
        for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
            if (now - thread->ran_ns <= HOT_NS)
                unseen -= (int64_t)measure(thread, &count, now);
        if (unseen <= SLACK_NS)
            quiet_ns = now;
        else
            for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;)
                if (now - thread->ran_ns > HOT_NS)
                    measure(thread, &count, now);
        accounted_ns = process;
    }
    else
        quiet_ns = now;
    for (unsigned number = 0; number < count; number++) {
        if (!moved[number]->ours)
            look_at(moved[number], now);
    }
}

void looks_settle(uint64_t now)
{
    if (!atomic_load(&interval))
        return;
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;) {
        uint64_t clock = thread->ours ? 0 : kernel_thread_cpu(thread->tid);
        if (clock == 0)
            continue;
        know_of_quiet(thread);
        if (take_clock(thread, clock, now) || thread->unlooked_ns) {
            thread->seen = false;
            write_running(thread, now);
        }
        else {
            know(thread, now);
            write_stay(thread);
        }
    }
}

/* -- beginning and change ---------------------------------------------------------------------------------------- */

/* The next look sees every thread, also those that do not run: nothing is known of where they are. */
static void begin(void)
{
    uint64_t now = kernel_monotonic();
    accounted_ns = quiet_ns = 0;
    memset(waits, 0, sizeof waits);
    for (struct thread *thread = NULL; (thread = threads_next(thread)) != NULL;) {
        thread->seen = false;
        thread->looked_ns = thread->since_ns = now;
        thread->locks_looked_ns = thread->locks_since_ns = lock_mark_waited(&thread->lock_mark, now);
        thread->clock_ns = kernel_thread_cpu(thread->tid);
        thread->carried_ns = 0;
        thread->unlooked_ns = 0;
    }
}

void looks_set(uint64_t interval_ns, bool charges, bool why, bool anew)
{
    if (anew || (interval_ns && !looks_interval()))
        begin();
    atomic_store(&charges_cpu, charges);
    atomic_store(&asks_why, why);
    atomic_store(&interval, interval_ns);
}

uint64_t looks_interval(void) { return atomic_load(&interval); }

void looks_abandon(void)
{
    memset(&looks_counts, 0, sizeof looks_counts);
    atomic_store(&interval, 0);
}
