#include "suspended.h"
#include "layout.h"

#include <string.h>

#define DEEPEST 127 /* as far as Python's own way goes, see instruments/chains.py */

static PyObject *awaited_name, *yielded_name;

static bool init_names(void)
{
    if (awaited_name == NULL)
        awaited_name = PyUnicode_InternFromString("cr_await");
    if (yielded_name == NULL)
        yielded_name = PyUnicode_InternFromString("gi_yieldfrom");
    return awaited_name != NULL && yielded_name != NULL;
}

/* What a future returns to whoever awaits it: the end of every chain. */
static bool is_future_wait(PyObject *step)
{
    const char *name = Py_TYPE(step)->tp_name, *last = strrchr(name, '.');
    return strcmp(last != NULL ? last + 1 : name, "FutureIter") == 0;
}

static PyObject *tuple_of(const struct place *places, unsigned depth, bool last_first)
{
    PyObject *tuple = PyTuple_New(2 * (Py_ssize_t)depth);
    for (unsigned number = 0; tuple != NULL && number < depth; number++) {
        const struct place *place = &places[last_first ? depth - 1 - number : number];
        PyObject *code = PyLong_FromVoidPtr((void *)place->code), *instruction = PyLong_FromLong(place->offset);
        if (code == NULL || instruction == NULL) {
            Py_XDECREF(code);
            Py_XDECREF(instruction);
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, 2 * number, code);
        PyTuple_SET_ITEM(tuple, 2 * number + 1, instruction);
    }
    return tuple;
}

PyObject *suspended_places(PyObject *step)
{
    struct place places[DEEPEST];
    unsigned depth = 0;
    if (!init_names())
        return NULL;
    Py_INCREF(step);
    while (depth < DEEPEST && (PyCoro_CheckExact(step) || PyGen_CheckExact(step))) {
        const Frame *frame = suspended_frame((PyGenObject *)step);
        if (frame == NULL)
            break;
        places[depth++] = (struct place){frame_code(frame), frame_lasti(frame)};
        /* It holds what it awaits. */
        PyObject *next = PyObject_GetAttr(step, PyCoro_CheckExact(step) ? awaited_name : yielded_name);
        Py_DECREF(step);
        if (next == NULL)
            return NULL;
        step = next;
    }
    bool is_whole = depth > 0 && (step == Py_None || is_future_wait(step));
    Py_DECREF(step);
    if (!is_whole)
        Py_RETURN_NONE;
    return tuple_of(places, depth, true);
}

PyObject *running_places(PyObject *leaf, bool of_task)
{
    struct place places[DEEPEST];
    unsigned depth = 0;
    if (!PyFrame_Check(leaf)) {
        PyErr_SetString(PyExc_TypeError, "running() takes a frame");
        return NULL;
    }
    for (const Frame *frame = frame_of(leaf); frame != NULL; frame = frame->previous) {
        if (frame_is_nobodys(frame))
            continue;
        if (of_task && !frame_is_suspendable(frame))
            break;
        if (depth == DEEPEST)
            Py_RETURN_NONE;
        places[depth++] = (struct place){frame_code(frame), frame_lasti(frame)};
    }
    return tuple_of(places, depth, false);
}
