# request.pxd: how a method of Ring makes a request.

from libc.stdint cimport uint32_t, uint64_t
from linux_event.core cimport le_raw
from linux_event.operation cimport Operation

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        void *msg_name
        unsigned msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

cdef class Request(Operation):
    cdef le_raw raw
    cdef list held         # what the kernel works on, beyond Operation.memory and .view
    cdef msghdr *header    # of recvmsg, in memory that is held; or NULL
    cdef tuple parts       # what it said in the end

# The start of every method: checks the ring and the callback. `where` is for repr.
cdef Request raw_new(object ring, object callback, object flags, object where)
# Fill the entry; other fields of core.sqe come after it. Raises NotImplementedError where the kernel lacks the operation.
cdef int raw_fill(Request self, unsigned opcode, int fd, const void *address, uint32_t length, uint64_t offset) except -1
# The end of every method.
cdef object raw_start(Request self)
# For a request that may be answered many times.
cdef int raw_many(Request self) except -1
# An fd, or the place of a direct descriptor if the flags say FIXED_FILE. `name`: of the argument.
cdef int raw_fd(Request self, object fd) except -1
# A folder's fd, or None or AT_FDCWD: the current folder.
cdef int raw_folder(Request self, object dir_fd) except *
cdef const char *raw_path(Request self, object path) except NULL
# Where a direct descriptor goes that the request makes; None: it makes an fd of the process, and close_on_exec is added.
cdef uint32_t raw_slot(Request self, object file_index, uint32_t *flags, uint32_t close_on_exec) except? 0
# The user's buffer; how much of it one request can move.
cdef char *raw_buffer(Request self, object buffer, bint is_written_to, uint32_t *length) except? NULL
cdef iovec *raw_vector(Request self, object buffers, bint is_written_to, uint32_t *count) except NULL
# Memory, zeroed, until the request is done.
cdef void *raw_memory(Request self, size_t size) except NULL
# The user data of a request of the same ring, for the kernel to find it by.
cdef uint64_t raw_target(Request self, object request) except 0
cdef int hold(Request self, object thing) except -1
# A request that is never freed, which completions have that are messages of other rings.
cdef uint64_t message_address() noexcept
# What takes these messages: a Request that is not at the kernel.
cdef Request inbox_new(object ring, object callback)
