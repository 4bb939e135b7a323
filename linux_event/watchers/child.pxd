# child.pxd: watchers of child processes.

from libc.stdint cimport int32_t, int64_t
from linux_event.core cimport le_chain, le_op
from linux_event.watcher cimport Watcher

cdef struct child_request:
    le_op op  # op.fd is the pidfd, or -1; op.bits are those of child_bit
    le_chain chain  # while active, in the loop's index by_child
    int32_t pid

cdef class Child(Watcher):
    cdef child_request request
    cdef int64_t pause_ns  # until the next try, where what is to be known cannot be asked yet
    cdef object process  # the subprocess.Popen, or None
    cdef object code  # what returncode gives
