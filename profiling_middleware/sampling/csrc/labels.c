#include "labels.h"
#include "codes.h"
#include "kernel.h"
#include "layout.h"
#include "lists.h"
#include "ring.h"

#include <stdlib.h>
#include <string.h>

/* A context's variables lie in a hash array mapped trie; its nodes are CPython's own (Python/hamt.c). */
struct bitmap_node {
    PyObject_VAR_HEAD
    uint32_t bitmap;
    PyObject *pairs[1]; /* a key and its value, or NULL and a node */
};
struct array_node {
    PyObject_HEAD
    PyObject *children[32];
};
struct collision_node {
    PyObject_VAR_HEAD
    int32_t hash;
    PyObject *pairs[1];
};

#define BITS 5
#define DEEPEST 8
#define MOST_COLLISIONS 16

struct label {
    PyObject_HEAD
    struct label_parts parts;
    uint64_t number; /* 0 once it is freed: then it is not taken for alive in memory that looks as if it were */
    uint32_t slot;
    bool sampled;
};

/* Each label that has not been freed, in its slot: what was read of one is found again without asking the system whether
 * its memory is still there, which costs a microsecond or two. With the GIL. */
#define NO_SLOT UINT32_MAX
struct slot {
    struct label *label; /* NULL in a free one */
    uint32_t next_free;
};
static struct slot *slots;
static uint32_t slot_count, first_free = NO_SLOT;

static void (*on_free)(uintptr_t label);
static uintptr_t bitmap_type, array_type, watched;
static uint32_t watched_hash;
static uint64_t labels_made;

static bool more_slots(void)
{
    uint32_t count = slot_count ? 2 * slot_count : 64;
    struct slot *grown = count < NO_SLOT ? realloc(slots, count * sizeof *slots) : NULL;
    if (grown == NULL)
        return false;
    slots = grown;
    for (; slot_count < count; slot_count++) {
        slots[slot_count] = (struct slot){NULL, first_free};
        first_free = slot_count;
    }
    return true;
}

static bool take_slot(struct label *label)
{
    if (first_free == NO_SLOT && !more_slots())
        return false;
    label->slot = first_free;
    first_free = slots[label->slot].next_free;
    slots[label->slot].label = label;
    return true;
}

static void give_back_slot(const struct label *label)
{
    slots[label->slot] = (struct slot){NULL, first_free};
    first_free = label->slot;
}

static PyObject *label_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    struct label_parts parts;
    if (keywords != NULL && PyDict_GET_SIZE(keywords) != 0) {
        PyErr_SetString(PyExc_TypeError, "Label() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OO:Label", &parts.resolve, &parts.subject))
        return NULL;
    struct label *self = (struct label *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (!take_slot(self)) {
        PyObject_GC_UnTrack(self);
        Py_TYPE(self)->tp_free(self);
        return PyErr_NoMemory();
    }
    Py_INCREF(parts.resolve);
    Py_INCREF(parts.subject);
    self->parts = parts;
    self->number = ++labels_made;
    return (PyObject *)self;
}

static int label_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((struct label *)self)->parts.resolve);
    Py_VISIT(((struct label *)self)->parts.subject);
    return 0;
}

static int label_clear(PyObject *self)
{
    Py_CLEAR(((struct label *)self)->parts.resolve);
    Py_CLEAR(((struct label *)self)->parts.subject);
    return 0;
}

static void label_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    /* Its own thread may have noted it, or another one read it: what is in the ring is resolved while it is here. */
    if (((struct label *)self)->sampled || !ring_empty())
        on_free((uintptr_t)self);
    give_back_slot((struct label *)self);
    *(volatile uint64_t *)&((struct label *)self)->number = 0; /* volatile: it is read after the memory has been freed */
    label_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *label_labels(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct label_parts parts = ((struct label *)self)->parts;
    return parts.resolve != NULL ? PyObject_CallOneArg(parts.resolve, parts.subject) : Py_NewRef(Py_None);
}

static PyMethodDef label_methods[] = {
    {"labels", label_labels, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Label_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "profiling_middleware.sampling._native.Label",
    .tp_doc = "Whom the work of a context is done for.",
    .tp_basicsize = sizeof(struct label),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = label_new,
    .tp_dealloc = label_dealloc,
    .tp_traverse = label_traverse,
    .tp_clear = label_clear,
    .tp_methods = label_methods,
};

/* Learns the types of nodes from a context of many variables: its root has a child for each value of five bits. */
static bool learn_nodes(void)
{
    PyObject *context = PyContext_New(), *variables = PyList_New(0);
    bool entered = context != NULL && variables != NULL && PyContext_Enter(context) == 0, good = entered;
    for (int number = 0; good && number < 200; number++) {
        PyObject *variable = PyContextVar_New("profiling_middleware.probe", NULL);
        PyObject *token = variable ? PyContextVar_Set(variable, Py_None) : NULL;
        good = token != NULL && PyList_Append(variables, variable) == 0;
        Py_XDECREF(token);
        Py_XDECREF(variable);
    }
    if (good) {
        PyObject *root = (PyObject *)((PyContext *)context)->ctx_vars->h_root;
        if (strcmp(Py_TYPE(root)->tp_name, "hamt_array_node") == 0) {
            array_type = (uintptr_t)Py_TYPE(root);
            for (int child = 0; child < 32; child++) {
                PyObject *node = ((struct array_node *)root)->children[child];
                if (node != NULL && strcmp(Py_TYPE(node)->tp_name, "hamt_bitmap_node") == 0)
                    bitmap_type = (uintptr_t)Py_TYPE(node);
            }
        }
    }
    if (entered && PyContext_Exit(context) != 0)
        good = false;
    Py_XDECREF(context);
    Py_XDECREF(variables);
    return good;
}

bool labels_init(void (*before_free)(uintptr_t label))
{
    on_free = before_free;
    return PyType_Ready(&Label_Type) == 0 && (bitmap_type != 0 || learn_nodes());
}

bool labels_watch(PyObject *variable)
{
    Py_hash_t hash = PyObject_Hash(variable);
    if (hash == -1 && PyErr_Occurred())
        return false;
    /* As hamt_hash() in Python/hamt.c folds it. */
    int32_t folded = (int32_t)((uint32_t)hash ^ (uint32_t)((uint64_t)hash >> 32));
    watched_hash = (uint32_t)(folded == -1 ? -2 : folded);
    if (watched != (uintptr_t)variable)
        watched = (uintptr_t)Py_NewRef(variable);
    return true;
}

/* A node from its type on, with the first of its pairs if it is one of pairs: most have few. */
#define PAIRS_AT_ONCE 4
struct node_start {
    uintptr_t type;
    Py_ssize_t size;
    uint32_t bitmap;
    uintptr_t pairs[PAIRS_AT_ONCE][2];
};
_Static_assert(offsetof(struct node_start, pairs) == offsetof(struct bitmap_node, pairs) - offsetof(PyObject, ob_type),
               "as CPython's own");

/* As kernel_read_some(). */
typedef size_t (*Load)(uintptr_t address, void *into, size_t least, size_t most);

static size_t load_own(uintptr_t address, void *into, size_t least, size_t most)
{
    (void)most;
    if (address == 0)
        return 0;
    memcpy(into, (const void *)address, least);
    return least;
}

static bool word_at(Load load, uintptr_t address, uintptr_t *into) { return load(address, into, sizeof *into, sizeof *into); }

static uintptr_t find(Load load, uintptr_t context)
{
    uintptr_t variables, node;
    if (!watched || !bitmap_type || !context ||
        !word_at(load, context + offsetof(PyContext, ctx_vars), &variables) ||
        !word_at(load, variables + offsetof(PyHamtObject, h_root), &node))
        return 0;
    for (unsigned level = 0, shift = 0; level < DEEPEST; level++, shift += BITS) {
        uint32_t index = shift < 32 ? (watched_hash >> shift) & 31u : 0;
        struct node_start start;
        size_t loaded = node ? load(node + offsetof(PyObject, ob_type), &start, offsetof(struct node_start, pairs), sizeof start) : 0;
        if (!loaded)
            return 0;
        if (start.type == array_type) {
            if (!word_at(load, node + offsetof(struct array_node, children) + index * sizeof(uintptr_t), &node))
                return 0;
            continue;
        }
        if (start.type != bitmap_type || !(start.bitmap & (1u << index)))
            return 0; /* not in this context; a collision node is as good as that */
        uintptr_t *pair = start.pairs[0];
        unsigned place = (unsigned)__builtin_popcount(start.bitmap & ((1u << index) - 1));
        if (offsetof(struct node_start, pairs) + (place + 1) * sizeof start.pairs[0] <= loaded)
            pair = start.pairs[place];
        else if (!load(node + offsetof(struct bitmap_node, pairs) + place * sizeof start.pairs[0], pair,
                       sizeof start.pairs[0], sizeof start.pairs[0]))
            return 0;
        if (pair[0] == watched)
            return pair[1];
        if (pair[0] != 0)
            return 0;
        node = pair[1];
    }
    return 0;
}

struct label_ref label_of_own(uintptr_t context)
{
    struct label *label = (struct label *)find(load_own, context);
    if (label == NULL || Py_TYPE((PyObject *)label) != &Label_Type)
        return (struct label_ref){0, 0};
    label->sampled = true;
    return (struct label_ref){label->slot, label->number};
}

struct label_ref label_of_other(uintptr_t context)
{
    struct label label;
    uintptr_t address = find(kernel_read_some, context);
    if (!address || !kernel_read(address, &label, sizeof label) || Py_TYPE((PyObject *)&label) != &Label_Type || label.number == 0)
        return (struct label_ref){0, 0};
    return (struct label_ref){label.slot, label.number};
}

int label_append(PyObject *list, struct label_parts label)
{
    int failed = list_append(list, label.resolve ? label.resolve : Py_NewRef(Py_None));
    return failed | list_append(list, label.subject ? label.subject : Py_NewRef(Py_None));
}

struct label_parts label_parts(struct label_ref ref)
{
    const struct label *label = ref.number && ref.slot < slot_count ? slots[ref.slot].label : NULL;
    /* It may have been freed since, and another one have its slot; or it was read while it was. */
    if (label == NULL || label->number != ref.number)
        return (struct label_parts){NULL, NULL};
    Py_XINCREF(label->parts.resolve);
    Py_XINCREF(label->parts.subject);
    return label->parts;
}
