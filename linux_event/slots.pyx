"""Slots: places for operations on whole files, of which a loop works on a bounded number at a time.

le_slots.h tells what a place is. Here is what needs Python: making them, and handing one over to the next operation.
"""

from cpython.ref cimport Py_INCREF
from linux_event.core cimport (
    LE_SLOT_NONE, LE_SLOTS, LE_SLOTS_DIRECT, LE_SLOTS_UNUSED, le_link, le_slots_open, le_slots_used, le_turn,
    le_turn_enter, le_turn_leave,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.errors cimport check_memory
from linux_event.operation cimport Operation, operation_enter
from linux_event.ring cimport register_slots


cdef int turn_start(Operation self, le_turn *turn, object timeout) except -1:
    cdef Engine loop = self.owner
    if loop.core.slots.state == LE_SLOTS_UNUSED:
        # The table is part of the ring, which has one: a kernel that refuses it now would do so later.
        check_memory(le_slots_open(&loop.core.slots, register_slots(&loop.core.ring, LE_SLOTS) == 0, 0))
    turn.owner = <void *>self
    turn.slot = LE_SLOT_NONE
    operation_enter(self, timeout)
    if le_turn_enter(&loop.core.slots, turn):
        begin(loop, turn)
    if loop.core.is_embedded:
        loop_changed(loop)
    return 0


cdef int turn_end(Operation self, le_turn *turn) except -1:
    cdef Engine loop = self.owner
    cdef le_turn *following = le_turn_leave(&loop.core.slots, turn)
    if following != NULL:
        begin(loop, following)
    return 0


cdef int begin(Engine loop, le_turn *turn) except -1:
    for _ in range(turn.begin(&loop.core, turn)):
        Py_INCREF(<object>turn.owner)
    return 0


def places(Engine loop, /):
    """How the places of a loop are used, for tests: (in use, waiting, direct).

    Two ints, and a bool: whether the kernel has given the ring a table of direct descriptors.
    """
    cdef Py_ssize_t waiting = 0
    cdef le_link *link = loop.core.slots.waiting.next
    while link != &loop.core.slots.waiting:
        waiting += 1
        link = link.next
    return le_slots_used(&loop.core.slots), waiting, loop.core.slots.state == LE_SLOTS_DIRECT
