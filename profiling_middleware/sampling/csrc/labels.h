/* Whom a thread works for: one ContextVar, read out of the running thread's context without running any Python. */
#ifndef PROFILING_LABELS_H
#define PROFILING_LABELS_H

#include "common.h"

extern PyTypeObject Label_Type;

/* The type, and which nodes contexts are made of here. False, with an exception set, on failure. `before_free` is called
 * with the GIL before a label that was read by a handler is freed. */
bool labels_init(void (*before_free)(uintptr_t label));
/* From now on this variable is read. It is kept for ever. */
bool labels_watch(PyObject *variable);

/* The address of the Label in a context, 0 when there is none. The context is the calling thread's own ... */
uintptr_t label_of_own(uintptr_t context);
/* ... or another one's, whose memory is only read through the kernel. */
uintptr_t label_of_other(uintptr_t context);

/* What the label at this address stands for, a new reference. With the GIL; the label must not have been freed. */
PyObject *label_value(uintptr_t label);

#endif
