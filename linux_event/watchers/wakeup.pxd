# wakeup.pxd: watchers that other threads notify.

from linux_event.core cimport le_notified
from linux_event.watcher cimport Watcher

cdef class Wakeup(Watcher):
    cdef le_notified member
