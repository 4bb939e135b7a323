# signal.pxd: watchers of signals, and the hub through which a loop gets them.

from libc.stdint cimport uint64_t
from linux_event.core cimport le_chain, le_link, le_op, le_signal_hub, le_signal_member, le_signalfd
from linux_event.watcher cimport Watcher

# One for each loop that has active signal watchers; it owns the request that polls the eventfd of the hub.
cdef class SignalHub:
    cdef le_signal_hub hub
    cdef le_op request
    cdef le_link members
    cdef bint is_listed
    cdef object reader  # the SignalReader of a loop that reads its signals, while it does

# Owns the request that reads the signalfd of a hub.
cdef class SignalReader:
    cdef le_signalfd core
    cdef SignalHub hub

cdef class Signal(Watcher):
    cdef le_chain chain
    cdef le_signal_member member
    cdef object told  # the SignalInfo of the call that is being made
    cdef SignalHub hub  # while active

# For whoever starts a program in the calling thread: unblock what its loops have blocked, and block it again afterwards.
cdef uint64_t signals_lift() noexcept
cdef void signals_lower(uint64_t bits) noexcept
