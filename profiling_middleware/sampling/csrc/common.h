/* What every part of the native engine includes first: for which interpreters and machines it is written. */
#ifndef PROFILING_COMMON_H
#define PROFILING_COMMON_H

#define PY_SSIZE_T_CLEAN
#ifndef Py_BUILD_CORE_MODULE
#define Py_BUILD_CORE_MODULE 1 /* the layouts of frames and thread states are in the internal headers */
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <Python.h>

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "the native engine is for Linux on x86-64 and arm64: the portable engine is used elsewhere"
#endif
#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "the native engine knows the frames of CPython 3.11, 3.12 and 3.13: the portable engine is used elsewhere"
#endif
#if defined(Py_GIL_DISABLED)
#error "the native engine needs the GIL: the portable engine is used in free-threaded builds"
#endif

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_DEPTH 512

/* Code addresses below this are no addresses but the frames named here. */
enum special_frame {
    SPECIAL_TRUNCATED = 1,
    SPECIAL_NO_PYTHON,
    SPECIAL_OTHER_INTERPRETER,
    SPECIAL_NOT_SEEN,
    SPECIAL_RUNNING,
    SPECIAL_KNOWN, /* no frame but a whole stack: `offset` is its number (table.h) */
    SPECIAL_END,
};

/* A frame as it is taken: a code object and the byte offset of the instruction it is at. */
struct place {
    uintptr_t code;
    int32_t offset;
};

/* A label that was seen: its place among those that are alive, and its number, which no other one ever has and which is 0
 * when there was none. */
struct label_ref {
    uint32_t slot;
    uint64_t number;
};

/* The number of a stack (table.h), and of the table that it is of: all numbers begin anew from time to time. */
struct known_at {
    uint32_t stack, table;
};

/* A stack, leaf first. */
struct raw_stack {
    uint32_t depth;
    struct place places[MAX_DEPTH + 1];
};

#endif
