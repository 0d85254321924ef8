/* Where coroutines wait, and where the calling thread is, without making objects of frames. With the GIL. */
#ifndef PROFILING_SUSPENDED_H
#define PROFILING_SUSPENDED_H

#include "common.h"

/* The id of the code and the instruction of a coroutine that waits, and of each that it awaits, those of the innermost first.
 * None where something in between is neither a coroutine nor a generator of Python's own, or it is too deep. */
PyObject *suspended_places(PyObject *step);

/* Likewise of the calling thread, from this frame of it on; with `of_task` as far as coroutines call each other, which is where
 * its task would wait. None where it is too deep. */
PyObject *running_places(PyObject *leaf, bool of_task);

#endif
