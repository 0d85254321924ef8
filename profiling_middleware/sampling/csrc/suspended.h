/* Where coroutines wait. With the GIL. */
#ifndef PROFILING_SUSPENDED_H
#define PROFILING_SUSPENDED_H

#include "common.h"

/* The id of the code and the instruction of a coroutine that waits, and of each that it awaits, those of the innermost first.
 * None where something in between is neither a coroutine nor a generator of Python's own, or it is too deep. */
PyObject *suspended_places(PyObject *step);

#endif
