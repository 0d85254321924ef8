/* The threads of this process, as the system knows them. */
#ifndef PROFILING_TASKS_H
#define PROFILING_TASKS_H

#include "common.h"

/* A list of their ids; empty where the system does not tell. NULL with an exception when there is no memory. */
PyObject *tasks_ids(void);

/* The name that the system shows for one (15 bytes at most), empty when it has ended. NULL with an exception likewise. */
PyObject *tasks_name(long id);

#endif
