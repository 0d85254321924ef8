#include "looker.h"
#include "kernel.h"
#include "looks.h"
#include "threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull
/* New threads are looked for so soon after the last time, however many come. */
#define DISCOVERY_GAP_NS (50 * MS)
/* When only threads that nobody knows are running, no handler tells of them: the process's own clock does, after this. */
#define PROCESS_PERIOD_NS (250 * MS)
#define NEVER UINT64_MAX

static pthread_t thread_of_ours;
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER; /* held while the thread is started or ended */
static bool running;
static unsigned pauses; /* forks that several threads make at once */
static bool paused;     /* it ran, or was to, when the first of them began */
static _Atomic int own_tid;
static _Atomic bool stopping;
static _Atomic uint32_t nudges;
static bool has_signal;
static _Atomic uint64_t used_ns;

void looker_nudge(void)
{
    atomic_fetch_add_explicit(&nudges, 1, memory_order_release);
    syscall(SYS_futex, &nudges, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Waits for a nudge until `until` on the monotonic clock. */
static void wait_for_nudge(uint32_t heard, uint64_t until)
{
    struct timespec time = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    syscall(SYS_futex, &nudges, FUTEX_WAIT_BITSET_PRIVATE, heard, until == NEVER ? NULL : &time, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static uint64_t jittered(uint64_t period) { return period / 2 + kernel_random() % (period + 1); }

static void *run(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "profiling-look");
    atomic_store(&own_tid, kernel_gettid());
    int timer = has_signal ? kernel_timer_create(0, kernel_gettid(), LOOKER_SIGNAL) : -1;
    if (timer >= 0)
        kernel_timer_set(timer, PROCESS_PERIOD_NS, PROCESS_PERIOD_NS);
    uint64_t discovered = 0, next_look = 0, before = used_ns; /* of threads that looked before this one */
    while (!atomic_load(&stopping)) {
        uint32_t heard = atomic_load(&nudges);
        uint64_t until = NEVER;
        threads_lock();
        /* Not before: whoever had the lock has handed out all times up to then. */
        uint64_t now = kernel_monotonic(), pause = looks_interval();
        if (threads_changed()) {
            if (now - discovered >= DISCOVERY_GAP_NS || (pause && now >= next_look)) {
                threads_discover(now);
                discovered = now;
            }
            else
                until = discovered + DISCOVERY_GAP_NS;
        }
        if (pause && now >= next_look) {
            looks_look(now);
            next_look = now + jittered(pause);
        }
        threads_unlock();
        used_ns = before + kernel_own_cpu();
        if (pause && next_look < until)
            until = next_look;
        wait_for_nudge(heard, until);
    }
    if (timer >= 0)
        kernel_timer_delete(timer);
    return NULL;
}

bool looker_running(void) { return running; }
uint64_t looker_used_ns(void) { return used_ns; }
int looker_tid(void) { return atomic_load(&own_tid); }

void looker_set(uint64_t interval_ns, bool charges, bool why)
{
    looks_set(interval_ns, charges, why, false);
    looker_nudge();
}

static bool start_thread(void)
{
    atomic_store(&stopping, false);
    /* Everything but SIGPROF is for the application's own threads. */
    sigset_t others, kept;
    sigfillset(&others);
    sigdelset(&others, SIGPROF);
    pthread_sigmask(SIG_SETMASK, &others, &kept);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    running = pthread_create(&thread_of_ours, &attributes, run, NULL) == 0;
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    return running;
}

static void end_thread(void)
{
    if (!running)
        return;
    atomic_store(&stopping, true);
    looker_nudge();
    pthread_join(thread_of_ours, NULL);
    running = false;
}

bool looker_start(uint64_t interval_ns, bool charges, bool why, bool signal)
{
    pthread_mutex_lock(&life);
    has_signal = signal;
    looks_set(interval_ns, charges, why, true);
    if (pauses)
        paused = true;
    bool good = running || pauses || start_thread();
    pthread_mutex_unlock(&life);
    return good;
}

void looker_stop(void)
{
    pthread_mutex_lock(&life);
    looks_set(0, false, false, false); /* nobody is to be looked at */
    paused = false;
    pauses = 0;
    end_thread();
    pthread_mutex_unlock(&life);
}

void looker_pause(void)
{
    pthread_mutex_lock(&life);
    if (pauses++ == 0)
        paused = running;
    end_thread();
    pthread_mutex_unlock(&life);
}

void looker_resume(void)
{
    pthread_mutex_lock(&life);
    if (pauses && --pauses == 0 && paused) {
        paused = false;
        start_thread();
    }
    pthread_mutex_unlock(&life);
}

void looker_abandon(void)
{
    /* Whoever held it is not in a forked child. */
    pthread_mutex_init(&life, NULL);
    running = paused = false;
    pauses = 0;
    used_ns = 0;
    looks_abandon();
}
