#include "tasks.h"
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As getdents(2) has it. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static bool append(PyObject *list, const struct entry *entry)
{
    long id = strtol(entry->name, NULL, 10); /* 0 for `.` and `..` */
    PyObject *number = id ? PyLong_FromLong(id) : NULL;
    bool good = id == 0 || (number != NULL && PyList_Append(list, number) == 0);
    Py_XDECREF(number);
    return good;
}

/* Not by opendir(): that takes the lowest descriptor there is, and os.listdir() keeps it for as long as it waits for the GIL. */
PyObject *tasks_ids(void)
{
    static _Alignas(struct entry) char buffer[16384]; /* with the GIL, which nothing here lets go of */
    PyObject *list = PyList_New(0);
    int directory = kernel_open("/proc/self/task");
    bool good = list != NULL;
    for (long size; good && directory >= 0 && (size = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0;)
        for (long at = 0; good && at < size;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            good = append(list, entry);
            at += entry->size;
        }
    if (directory >= 0)
        close(directory);
    if (!good)
        Py_CLEAR(list);
    return list;
}

PyObject *tasks_name(long id)
{
    char path[64], name[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/comm", id);
    int file = kernel_open(path);
    ssize_t size = file >= 0 ? read(file, name, sizeof name) : 0;
    if (file >= 0)
        close(file);
    while (size > 0 && name[size - 1] == '\n')
        size--;
    return PyUnicode_DecodeUTF8(name, size > 0 ? size : 0, "replace");
}
