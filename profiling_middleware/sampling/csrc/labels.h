/* Whom a thread works for: one ContextVar, read out of the running thread's context without running any Python. */
#ifndef PROFILING_LABELS_H
#define PROFILING_LABELS_H

#include "common.h"

extern PyTypeObject Label_Type;

/* The type, and which nodes contexts are made of here. False, with an exception set, on failure. `before_free` is called
 * with the GIL before a label is freed that may have been read. */
bool labels_init(void (*before_free)(uintptr_t label));
/* From now on this variable is read. It is kept for ever. */
bool labels_watch(PyObject *variable);

/* The Label in a context. The context is the calling thread's own ... */
struct label_ref label_of_own(uintptr_t context);
/* ... or another one's, whose memory is only read through the kernel. */
struct label_ref label_of_other(uintptr_t context);

/* What a label is made of: a function, and what it is to be called with to know the labels. */
struct label_parts {
    PyObject *resolve, *subject;
};

/* New references to what a label is made of; NULL and NULL when it has been freed. With the GIL. */
struct label_parts label_parts(struct label_ref label);
/* As list_append(): these references, or None twice. */
int label_append(PyObject *list, struct label_parts label);

#endif
