# errors.pxd: one funnel for the results of system calls, and the errors of misuse.

cdef int check(int result) except -1
cdef int check_errno(int result) except -1
cdef int check_memory(int result) except -1
