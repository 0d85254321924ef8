#include "natives.h"
#include "threads.h"

static struct native {
    pid_t tid;
    uint64_t cpu_ns;
} natives[MAX_THREADS];
static unsigned count;

void natives_note(pid_t tid, uint64_t cpu_ns)
{
    if (count < MAX_THREADS)
        natives[count++] = (struct native){tid, cpu_ns};
}

void natives_forget(void) { count = 0; }

uint64_t natives_used(pid_t tid, uint64_t clock_ns)
{
    for (unsigned index = 0; index < count; index++)
        /* Less than then: the system has given the number to a new one. */
        if (natives[index].tid == tid && natives[index].cpu_ns <= clock_ns)
            return natives[index].cpu_ns;
    return 0;
}
