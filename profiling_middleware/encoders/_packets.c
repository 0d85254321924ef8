/* The packets of a chunk of a Perfetto trace: kept with their moments, put in order and written. packets.py is the
 * same in Python, and says what each call does. Field numbers: see perfetto.py. */

#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum rank { ENDS, HAPPENS, BEGINS };
enum { NANOSECONDS = 1000, LONGEST_VARINT = 10, FLOW_BYTES = 2 + 8 };
#define NEVER (INT64_C(1) << 62)

/* Tags: field << 3 | wire type, as varints. */
static const uint8_t PACKET = 1 << 3 | 2, TIMESTAMP = 8 << 3, TRACK_EVENT = 11 << 3 | 2;
static const uint8_t IN_NANOSECONDS[] = {0xD0, 0x03, 3}; /* timestamp_clock_id 58: the monotonic clock */
static const uint8_t FLOW[] = {0xF9, 0x02}, LAST_FLOW[] = {0x81, 0x03}; /* 47 and 48, of 64 bits */

typedef struct {
    int64_t when_us, order[3];
    PyObject *event;         /* bytes */
    size_t more, more_bytes; /* of `packets.more`: what an event ends with */
    size_t number;
    uint8_t rank;
    uint8_t is_content; /* `event` is a TrackEvent's content, still without its tag and size */
} packet;

typedef struct {
    PyObject_HEAD
    packet *all;
    size_t count, room;
    uint8_t *more;
    size_t more_used, more_room;
    uint64_t flow_base;
    int writing; /* another thread must keep out meanwhile */
} packets;

/* -- what is kept ------------------------------------------------------------------------------------------------- */

static int check_idle(packets *self)
{
    if (self->writing) {
        PyErr_SetString(PyExc_RuntimeError, "packets are being written by another thread");
        return -1;
    }
    return 0;
}

static packet *add(packets *self, int64_t when_us, enum rank rank, PyObject *event)
{
    if (self->count == self->room) {
        size_t room = self->room ? self->room * 2 : 256;
        packet *grown = realloc(self->all, room * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->all = grown;
        self->room = room;
    }
    packet *one = &self->all[self->count];
    memset(one, 0, sizeof *one);
    one->when_us = when_us;
    one->rank = (uint8_t)rank;
    one->event = Py_NewRef(event);
    one->number = self->count++;
    return one;
}

static uint8_t *more_room(packets *self, size_t bytes)
{
    if (self->more_used + bytes > self->more_room) {
        size_t room = (self->more_used + bytes) * 2;
        uint8_t *grown = realloc(self->more, room);
        if (grown == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->more = grown;
        self->more_room = room;
    }
    return self->more + self->more_used;
}

static int add_flows(packets *self, PyObject *flows, const uint8_t tag[2])
{
    Py_ssize_t count = PyTuple_Size(flows);
    uint8_t *to = count > 0 ? more_room(self, (size_t)count * FLOW_BYTES) : NULL;
    if (count > 0 && to == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t flow = PyLong_AsUnsignedLongLong(PyTuple_GetItem(flows, i));
        if (PyErr_Occurred())
            return -1;
        flow |= self->flow_base;
        *to++ = tag[0];
        *to++ = tag[1];
        for (int shift = 0; shift < 64; shift += 8)
            *to++ = (uint8_t)(flow >> shift);
        self->more_used += FLOW_BYTES;
    }
    return 0;
}

static int64_t microseconds(int64_t ns)
{
    return ns / NANOSECONDS;
}

static PyObject *packets_slice(packets *self, PyObject *args)
{
    PyObject *begin, *end, *flows, *last_flows;
    long long began_ns, ended_ns;
    if (check_idle(self) < 0 || !PyArg_ParseTuple(args, "SSLLO!O!:slice", &begin, &end, &began_ns, &ended_ns,
                                                  &PyTuple_Type, &flows, &PyTuple_Type, &last_flows))
        return NULL;
    size_t more = self->more_used;
    if (add_flows(self, flows, FLOW) < 0 || add_flows(self, last_flows, LAST_FLOW) < 0) {
        self->more_used = more;
        return NULL;
    }
    int64_t began = microseconds(began_ns), ended = microseconds(ended_ns);
    if (ended <= began)
        ended = began + 1;
    packet *first = add(self, began, BEGINS, begin);
    if (first == NULL)
        return NULL;
    first->is_content = 1;
    first->more = more;
    first->more_bytes = self->more_used - more;
    first->order[0] = ended_ns ? -ended : -NEVER;
    first->order[1] = began_ns;
    first->order[2] = -ended_ns;
    if (ended_ns) {
        packet *last = add(self, ended, ENDS, end);
        if (last == NULL)
            return NULL;
        last->order[0] = -began;
    }
    Py_RETURN_NONE;
}

static PyObject *packets_moment(packets *self, PyObject *args)
{
    PyObject *event;
    long long time_ns;
    if (check_idle(self) < 0 || !PyArg_ParseTuple(args, "LS:moment", &time_ns, &event))
        return NULL;
    if (add(self, microseconds(time_ns), HAPPENS, event) == NULL)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *packets_first_us(packets *self, PyObject *Py_UNUSED(ignored))
{
    int64_t first = 0;
    if (check_idle(self) < 0)
        return NULL;
    for (size_t i = 0; i < self->count; i++)
        if (i == 0 || self->all[i].when_us < first)
            first = self->all[i].when_us;
    return PyLong_FromLongLong(first);
}

/* -- what is written ---------------------------------------------------------------------------------------------- */

static int in_order(const void *left, const void *right)
{
    const packet *a = left, *b = right;
    if (a->when_us != b->when_us)
        return a->when_us < b->when_us ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    for (int i = 0; i < 3; i++)
        if (a->order[i] != b->order[i])
            return a->order[i] < b->order[i] ? -1 : 1;
    return a->number < b->number ? -1 : 1;
}

static size_t varint_bytes(uint64_t number)
{
    size_t bytes = 1;
    for (; number > 127; number >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *put_varint(uint8_t *to, uint64_t number)
{
    for (; number > 127; number >>= 7)
        *to++ = (uint8_t)(number | 128);
    *to++ = (uint8_t)number;
    return to;
}

static uint8_t *put(uint8_t *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return to + bytes;
}

typedef struct {
    const uint8_t *bytes;
    size_t size;
} text;

static size_t most_bytes(const packets *self, const text *events, size_t sequence_bytes)
{
    size_t most = 0;
    for (size_t i = 0; i < self->count; i++)
        most += events[i].size + self->all[i].more_bytes + sequence_bytes + 4 * (1 + LONGEST_VARINT);
    return most;
}

static uint8_t *put_packet(uint8_t *to, const packets *self, const packet *one, text event, text sequence, uint64_t at,
                           int is_later)
{
    uint8_t stamp[1 + LONGEST_VARINT + sizeof IN_NANOSECONDS], *stamped = stamp;
    if (is_later || at) {
        *stamped++ = TIMESTAMP;
        stamped = put_varint(stamped, at);
    }
    if (!is_later)
        stamped = put(stamped, IN_NANOSECONDS, sizeof IN_NANOSECONDS);
    size_t content = event.size + one->more_bytes;
    size_t bytes = (size_t)(stamped - stamp) + content + sequence.size;
    if (one->is_content)
        bytes += 1 + varint_bytes(content);
    *to++ = PACKET;
    to = put_varint(to, bytes);
    to = put(to, stamp, (size_t)(stamped - stamp));
    if (one->is_content) {
        *to++ = TRACK_EVENT;
        to = put_varint(to, content);
    }
    to = put(to, event.bytes, event.size);
    if (one->more_bytes)
        to = put(to, self->more + one->more, one->more_bytes);
    return put(to, sequence.bytes, sequence.size);
}

static uint8_t *put_all(uint8_t *to, packets *self, const text *events, text sequence, int64_t base)
{
    qsort(self->all, self->count, sizeof *self->all, in_order);
    int64_t at = base;
    for (size_t i = 0; i < self->count; i++) {
        const packet *one = &self->all[i];
        int is_later = one->when_us >= base;
        uint64_t stamp = is_later ? (uint64_t)(one->when_us - at) : (uint64_t)one->when_us * NANOSECONDS;
        to = put_packet(to, self, one, events[one->number], sequence, stamp, is_later);
        if (is_later)
            at = one->when_us;
    }
    return to;
}

static void forget_all(packets *self)
{
    /* Bytes have no code of their own that would run here. */
    for (size_t i = 0; i < self->count; i++)
        Py_DECREF(self->all[i].event);
    self->count = self->more_used = 0;
}

static PyObject *packets_take(packets *self, PyObject *args)
{
    PyObject *sequence_bytes;
    long long base;
    if (check_idle(self) < 0 || !PyArg_ParseTuple(args, "LS:take", &base, &sequence_bytes))
        return NULL;
    text sequence = {(const uint8_t *)PyBytes_AsString(sequence_bytes), (size_t)PyBytes_Size(sequence_bytes)};
    text *events = malloc((self->count + 1) * sizeof *events);
    if (events == NULL)
        return PyErr_NoMemory();
    for (size_t i = 0; i < self->count; i++) {
        PyObject *event = self->all[i].event;
        events[i] = (text){(const uint8_t *)PyBytes_AsString(event), (size_t)PyBytes_Size(event)};
    }
    uint8_t *written = malloc(most_bytes(self, events, sequence.size) + 1), *end = written;
    if (written != NULL) {
        /* Bytes do not change, and nobody adds any meanwhile: the service need not wait for this. */
        self->writing = 1;
        Py_BEGIN_ALLOW_THREADS
        end = put_all(written, self, events, sequence, base);
        Py_END_ALLOW_THREADS
        self->writing = 0;
        forget_all(self);
    }
    free(events);
    PyObject *result = written ? PyBytes_FromStringAndSize((const char *)written, end - written) : PyErr_NoMemory();
    free(written);
    return result;
}

/* -- the type ----------------------------------------------------------------------------------------------------- */

static PyObject *packets_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    unsigned long long flow_base;
    if (keywords != NULL && PyDict_Size(keywords) != 0) {
        PyErr_SetString(PyExc_TypeError, "Packets takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "K:Packets", &flow_base))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    packets *self = (packets *)alloc(type, 0);
    if (self != NULL)
        self->flow_base = flow_base;
    return (PyObject *)self;
}

static void packets_dealloc(packets *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    forget_all(self);
    free(self->all);
    free(self->more);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static Py_ssize_t packets_length(packets *self)
{
    return (Py_ssize_t)self->count;
}

static PyMethodDef METHODS[] = {
    {"slice", (PyCFunction)packets_slice, METH_VARARGS, NULL},
    {"moment", (PyCFunction)packets_moment, METH_VARARGS, NULL},
    {"first_us", (PyCFunction)packets_first_us, METH_NOARGS, NULL},
    {"take", (PyCFunction)packets_take, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot SLOTS[] = {
    {Py_tp_new, packets_new},     {Py_tp_dealloc, packets_dealloc}, {Py_tp_methods, METHODS},
    {Py_sq_length, packets_length}, {0, NULL},
};

static PyType_Spec SPEC = {
    .name = "profiling_middleware.encoders._packets.Packets",
    .basicsize = sizeof(packets),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = SLOTS,
};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&SPEC);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Packets", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_packets", .m_slots = MODULE_SLOTS};

PyMODINIT_FUNC PyInit__packets(void)
{
    return PyModuleDef_Init(&MODULE);
}
