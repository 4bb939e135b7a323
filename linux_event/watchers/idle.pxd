# idle.pxd: watchers that run when nothing else does.

from linux_event.core cimport le_idle
from linux_event.watcher cimport Watcher

cdef class Idle(Watcher):
    cdef le_idle member
