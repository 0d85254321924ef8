"""The engine broken in one place each: a run that does not notice would not notice the same mistake in the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_BOTH = ("native", "polling")
_LONG = 300.0


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file` below sampling/ what is `old` becomes `new`."""

    file: str
    old: str
    new: str
    engines: tuple[str, ...] = _BOTH
    seconds: float = 60.0
    """How long a run may take to notice it: some mistakes need two things at the same microsecond."""


MUTATIONS = {
    "names are kept when their code is freed": Mutation(
        "csrc/table.c", "        codes[number].address = UINTPTR_MAX;\n", "        (void)number;\n"
    ),
    "nothing is resolved before its code is freed": Mutation("csrc/codes.c", "    on_free(code);\n", ""),
    "what has been freed since is believed": Mutation(
        "csrc/codes.c",
        "        return true;\n    for (; since < count; since++)",
        "        return true;\n    for (; false;)",
        seconds=_LONG,
    ),
    "a name is another's": Mutation(
        "csrc/table.c",
        "        code->name = Py_NewRef(object->co_qualname);\n",
        "        code->name = Py_NewRef(code_count % 50 == 49 ? codes[code_count - 1].name : object->co_qualname);\n",
    ),
    "a line is the next one's": Mutation(
        "csrc/table.c", "PyCode_Addr2Line(object, offset)", "PyCode_Addr2Line(object, offset + 8)"
    ),
    "a caller is left out": Mutation(
        "csrc/walk.c",
        "        at = (uintptr_t)frame->previous;\n",
        "        at = (uintptr_t)frame->previous;\n"
        "        if (stack->depth == 3 && at && !frame_is_nobodys((Frame *)at))\n"
        "            at = (uintptr_t)((Frame *)at)->previous;\n",
        engines=("native",),
    ),
    "who runs is believed to stand still": Mutation(
        "csrc/outside.c", "runs = kernel_thread_cpu(tid) != clock;", "runs = kernel_thread_cpu(tid) == 0;"
    ),
    "frames that cannot be there together are believed": Mutation(
        "csrc/outside.c",
        "(checked && !can_be(&frame, above_at ? &above : NULL))",
        "false",
        engines=("polling",),
        seconds=_LONG,
    ),
    "a C frame just made is believed": Mutation(
        "csrc/walk.c",
        "if ((uintptr_t)frame->previous != entered_from)",
        "if (false)",
        engines=("native",),
        seconds=_LONG,
    ),
    "a thread is another": Mutation(
        "csrc/sampler.c",
        "    record->thread = thread->key;\n",
        "    record->thread = thread->key - (thread->key % 7 == 0);\n",
        engines=("native",),
    ),
    "labels that were freed are read": Mutation(
        "csrc/labels.c",
        "!read_label(ref.address, &label) || label.number != ref.number",
        "!kernel_read(ref.address, &label, sizeof label)",
    ),
    "a label is kept for ever": Mutation(
        "csrc/labels.c",
        "    Py_XINCREF(label.parts.subject);\n    return",
        "    Py_XINCREF(label.parts.subject);\n    Py_XINCREF(label.parts.subject);\n    return",
    ),
    "a descriptor is left open": Mutation(
        "csrc/threads.c", "        close(thread->state_file);\n", "        (void)close;\n", engines=("polling",)
    ),
    "a thread is left behind": Mutation(
        "csrc/looker.c",
        "    pthread_join(thread_of_ours, NULL);\n",
        "    pthread_detach(thread_of_ours);\n    atomic_store(&stopping, false);\n",
    ),
    "a timer is left behind": Mutation(
        "csrc/threads.c", "        kernel_timer_delete(thread->timer);\n", "        (void)0;\n", engines=("native",)
    ),
    "errno is another's": Mutation(
        "csrc/sampler.c", "    errno = kept;\n", "    errno = kept ? EINTR : 0;\n", engines=("native",)
    ),
}


def mutate(package: Path, name: str) -> None:
    """Breaks a copy of the package. Raises LookupError when the engine has become another one."""
    mutation = MUTATIONS[name]
    path = package / "sampling" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise LookupError(f"{name}: {mutation.file} has it {text.count(mutation.old)} times; write the mutation anew")
    path.write_text(text.replace(mutation.old, mutation.new))
