#include "sampler.h"
#include "codes.h"
#include "kernel.h"
#include "labels.h"
#include "looker.h"
#include "ring.h"
#include "threads.h"
#include "walk.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define CALIBRATION_SIGNALS 32

struct sampler_counts sampler_counts;
static struct sigaction before;
static _Atomic bool active;
static uint64_t delivery_ns; /* what the kernel needs to deliver a signal and to come back */

static void special(struct raw_stack *stack, enum special_frame frame)
{
    stack->depth = 1;
    stack->places[0] = (struct place){frame, 0};
}

static bool walk(const PyThreadState *state, struct raw_stack *stack)
{
    if (state == NULL)
        special(stack, SPECIAL_NO_PYTHON);
    else if (state->interp != threads_interpreter())
        special(stack, SPECIAL_OTHER_INTERPRETER);
    else if (walk_own(state, stack) != WALK_DONE)
        return false;
    else if (stack->depth == 0)
        special(stack, SPECIAL_NO_PYTHON);
    return true;
}

/* Runs in the thread that is sampled, at any point of its work, with or without the GIL: it allocates nothing, takes no
 * lock, and calls nothing that does. */
static void sample(struct thread *thread)
{
    /* CPU time and not time: the thread may be put aside while it is in here. */
    uint64_t began = kernel_own_cpu();
    /* The state of the thread itself, whoever has the GIL: it reads a thread-specific value and no more. */
    const PyThreadState *state = PyGILState_GetThisThreadState();
    struct raw_stack *stack = threads_own_stack(thread);
    if (!walk(state, stack)) {
        atomic_fetch_add_explicit(&sampler_counts.torn, 1, memory_order_relaxed);
        return;
    }
    struct record *record = ring_reserve(RECORD_CPU, stack->depth);
    if (record == NULL) {
        atomic_fetch_add_explicit(&sampler_counts.no_room, 1, memory_order_relaxed);
        return;
    }
    memcpy(record->places, stack->places, stack->depth * sizeof *stack->places);
    record->thread = thread->key;
    record->time_ns = kernel_monotonic();
    record->codes_freed = codes_freed();
    if (state != NULL)
        record->label = label_of_own((uintptr_t)state->context);
    /* All that was used since the last sample, however many of the timer's expirations that were. */
    uint64_t charged = atomic_exchange(&thread->charged_ns, began);
    record->cpu_ns = began > charged ? began - charged : 0;
    ring_commit(record);
    atomic_fetch_add_explicit(&sampler_counts.samples, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&sampler_counts.own_ns, kernel_own_cpu() - began + delivery_ns, memory_order_relaxed);
    if (threads_changed())
        looker_nudge();
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (!atomic_load_explicit(&active, memory_order_acquire) || info->si_code != SI_TIMER)
        return;
    int kept = errno;
    uintptr_t value = (uintptr_t)info->si_value.sival_ptr;
    if (value == LOOKER_SIGNAL)
        looker_nudge();
    else {
        struct thread *thread = threads_by_signal(value);
        if (thread != NULL)
            sample(thread);
    }
    errno = kept;
}

static void calibrate(void)
{
    uint64_t began = kernel_own_cpu();
    for (int number = 0; number < CALIBRATION_SIGNALS; number++)
        raise(SIGPROF);
    delivery_ns = (kernel_own_cpu() - began) / CALIBRATION_SIGNALS;
}

bool sampler_owns_signal(void)
{
    struct sigaction now;
    return sigaction(SIGPROF, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal;
}

static bool is_nobodys(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN);
}

bool sampler_could_install(void)
{
    struct sigaction now;
    return sampler_owns_signal() || (sigaction(SIGPROF, NULL, &now) == 0 && is_nobodys(&now));
}

bool sampler_install(void)
{
    struct sigaction ours;
    if (sampler_owns_signal())
        goto installed;
    if (sigaction(SIGPROF, NULL, &before) != 0 || !is_nobodys(&before))
        return false;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_signal;
    /* System calls that can be are restarted. On the alternate stack where the thread has one: its own may be small. */
    ours.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    /* All others wait: a handler of the application must not find this thread half way. */
    sigfillset(&ours.sa_mask);
    if (sigaction(SIGPROF, &ours, NULL) != 0)
        return false;
    if (delivery_ns == 0)
        calibrate();
installed:
    atomic_store_explicit(&active, true, memory_order_release);
    return true;
}

void sampler_uninstall(void)
{
    atomic_store_explicit(&active, false, memory_order_release);
    if (!sampler_owns_signal())
        return; /* somebody has set a handler of their own: it is theirs now */
    /* The default is to die. Ignoring throws away what is still on its way, so that nothing comes after the default is
     * back. */
    struct sigaction ignore;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPROF, &ignore, NULL);
    sigaction(SIGPROF, &before, NULL);
}

void sampler_abandon(void) { atomic_store(&active, false); }
