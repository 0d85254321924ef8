/* What the kernel is asked for: memory that may not be there, CPU clocks and timers of threads. */
#ifndef PROFILING_KERNEL_H
#define PROFILING_KERNEL_H

#include "common.h"

#include <sys/types.h>

/* Finds out how memory can be read here. False when it cannot be: then there is no native engine. */
bool kernel_init(void);
/* In a forked child: from now on its own memory is read. */
void kernel_abandon(void);

/* A descriptor to read the file with, -1 on failure; never 0, 1 or 2: see descriptors.py. */
int kernel_open(const char *path);

/* Copies `size` bytes from `address`; false when they are not all there. Safe for any address, and in a handler. */
bool kernel_read(uintptr_t address, void *into, size_t size);

/* The same, but `least` bytes are enough: returns how many were copied, `least` to `most`; 0 when there are not so many. */
size_t kernel_read_some(uintptr_t address, void *into, size_t least, size_t most);

/* The same for several stretches, one after the other and as close together as can be; at most KERNEL_MOST_PARTS. */
struct part {
    uintptr_t address;
    void *into;
    size_t size;
};
#define KERNEL_MOST_PARTS 1024 /* IOV_MAX, of which Linux has always had so many */
bool kernel_read_parts(const struct part *parts, unsigned count);

/* Whether `size` bytes (at most a page) may be loaded from `address`. Safe for any address, and in a handler. */
bool kernel_readable(uintptr_t address, size_t size);

/* CPU time of a thread in nanoseconds; 0 when it has ended (a thread that lives has used some). */
uint64_t kernel_thread_cpu(pid_t tid);
uint64_t kernel_own_cpu(void);
uint64_t kernel_process_cpu(void);
uint64_t kernel_monotonic(void);

/* A timer that sends SIGPROF to thread `receiver` each time `interval_ns` of CPU time have been used by thread `tid`, or by
 * the whole process when `tid` is 0. `value` comes with the signal. Returns -1 on failure. */
int kernel_timer_create(pid_t tid, pid_t receiver, uintptr_t value);
bool kernel_timer_set(int timer, uint64_t first_ns, uint64_t interval_ns);
void kernel_timer_delete(int timer);

pid_t kernel_gettid(void);

/* A number without a pattern that could be in step with a program. Of its own, so that the program's random() is left
 * alone; for one caller at a time. */
uint64_t kernel_random(void);

#endif
