/* What goes to Python goes in lists. */
#ifndef PROFILING_LISTS_H
#define PROFILING_LISTS_H

#include "common.h"

/* Appends the item and gives its reference away. Not 0, with an exception, when it failed; so is NULL. */
static inline int list_append(PyObject *list, PyObject *item)
{
    int failed = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return failed;
}

#endif
