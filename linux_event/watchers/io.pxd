# io.pxd: watchers of the readiness of an fd.

from linux_event.core cimport le_poll
from linux_event.watcher cimport Watcher

cdef class IOWatcher(Watcher):
    cdef le_poll request
    cdef object source  # what was given as the fd, kept alive until the watcher is destroyed
