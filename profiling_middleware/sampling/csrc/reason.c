#include "reason.h"
#include "layout.h"

#include <internal/pycore_runtime.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static enum reason by_descriptor(unsigned long descriptor)
{
    struct stat status;
    if (fstat((int)descriptor, &status) != 0)
        return REASON_OTHER;
    return S_ISSOCK(status.st_mode) ? REASON_NETWORK : REASON_FILE;
}

static enum reason by_futex(uintptr_t address)
{
    /* The lock of the interpreter lies in its runtime, and no lock of a program does. */
    return address - (uintptr_t)&_PyRuntime < sizeof _PyRuntime ? REASON_GIL : REASON_LOCK;
}

static enum reason by_call(long call, unsigned long argument)
{
    switch (call) {
    case SYS_futex:
        return by_futex(argument);
    case SYS_read:
    case SYS_write:
    case SYS_readv:
    case SYS_writev:
    case SYS_pread64:
    case SYS_pwrite64:
    case SYS_preadv:
    case SYS_pwritev:
    case SYS_sendfile:
        return by_descriptor(argument);
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_connect:
        return REASON_NETWORK;
    case SYS_accept:
    case SYS_accept4:
        return REASON_ACCEPT;
    case SYS_ppoll:
    case SYS_pselect6:
#ifdef SYS_poll /* not on arm64 */
    case SYS_poll:
    case SYS_select:
#endif
        return REASON_POLL;
    case SYS_epoll_pwait:
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
#endif
        return REASON_EVENTS;
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
        return REASON_SLEEP;
    case SYS_wait4:
    case SYS_waitid:
        return REASON_CHILD;
    case SYS_openat:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_flock:
    case SYS_fcntl:
    case SYS_copy_file_range:
#ifdef SYS_open
    case SYS_open:
#endif
        return REASON_FILE;
    default:
        return REASON_OTHER;
    }
}

enum reason reason_of(const char *text)
{
    char *rest;
    long call = strtol(text, &rest, 10);
    if (rest == text || call < 0)
        return REASON_UNKNOWN; /* "running", or -1: a page fault */
    return by_call(call, strtoul(rest, NULL, 16));
}
