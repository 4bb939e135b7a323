# slots.pxd: places for operations on whole files, as the kinds of these use them.

from linux_event.core cimport le_turn
from linux_event.operation cimport Operation

# The end of a method: turn.begin() is called now, or when there is a place.
cdef int turn_start(Operation self, le_turn *turn, object timeout) except -1
# The `release` of a kind: the place goes to the operation that waits longest.
cdef int turn_end(Operation self, le_turn *turn) except -1
