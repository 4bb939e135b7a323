# signal.pxd: watchers of signals, and the hub through which a loop gets them.

from linux_event.core cimport le_chain, le_link, le_op, le_signal_hub, le_signal_member
from linux_event.watcher cimport Watcher

# One for each loop that has active signal watchers; it owns the request that polls the eventfd of the hub.
cdef class SignalHub:
    cdef le_signal_hub hub
    cdef le_op request
    cdef le_link members
    cdef bint is_listed

cdef class Signal(Watcher):
    cdef le_chain chain
    cdef le_signal_member member
    cdef object told  # the SignalInfo of the call that is being made
    cdef SignalHub hub  # while active
