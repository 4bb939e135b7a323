"""A kind of watcher of another package: a request that does nothing goes to the kernel and back.

It shows all that a kind needs: the class, the functions in its table, and the request that stands behind it.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, uint32_t
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_OP_ABI, LE_OP_END, LE_WATCHER_ABI, le_loop, le_op, le_op_class, le_op_verdict, le_watcher,
    le_watcher_class, le_watcher_collect, le_watcher_function,
)
from linux_event.liburing cimport io_uring_sqe
from linux_event.loop cimport add_method, op_start, op_stop
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_deactivate, watcher_options

cdef extern from "liburing.h" nogil:
    void io_uring_prep_nop(io_uring_sqe *sqe)

cdef struct trip_request:
    le_op op  # first, so that its address is that of the struct
    int32_t result


@cython.final
cdef class RoundTrip(Watcher):
    """Calls ``callback(watcher, result)`` once for each ``start``, when the kernel has answered with ``result``."""
    cdef trip_request request

    def __init__(self, loop, callback, *, data=None, priority=0, ref=True, start=True):
        watcher_begin(self, &round_trip_class, loop, callback)
        self.request.op.cls = &nop_class
        watcher_options(self, data, priority, ref, start)

    def describe(self):
        """What the watcher waits for, for ``repr``."""
        return "nop"


cdef int round_trip_start(void *watcher) except -1:
    cdef RoundTrip self = <RoundTrip>watcher
    op_start(self.owner, &self.request.op)
    return 0


cdef int round_trip_stop(void *watcher) except -1:
    cdef RoundTrip self = <RoundTrip>watcher
    op_stop(self.owner, &self.request.op)
    return 0


cdef int round_trip_dispatch(void *watcher) except -1:
    cdef RoundTrip self = <RoundTrip>watcher
    watcher_deactivate(self)
    self.function(self, self.request.result)
    return 0


cdef le_watcher_class round_trip_class
round_trip_class.abi = LE_WATCHER_ABI
round_trip_class.name = "round trip"
round_trip_class.on_start = <le_watcher_function>round_trip_start
round_trip_class.on_stop = <le_watcher_function>round_trip_stop
round_trip_class.on_dispatch = <le_watcher_function>round_trip_dispatch


# -- The request, without Python ---------------------------------------------------------------------------------------

cdef void nop_prep(le_op *op, io_uring_sqe *sqe) noexcept nogil:
    io_uring_prep_nop(sqe)


cdef le_op_verdict nop_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil:
    (<trip_request *>op).result = result
    le_watcher_collect(loop, <le_watcher *>(<char *>op - request_offset), LE_LANE_COMPLETIONS)
    return LE_OP_END


cdef ptrdiff_t request_offset  # from the le_watcher of a RoundTrip to its request
cdef le_op_class nop_class
nop_class.abi = LE_OP_ABI
nop_class.name = "nop"
nop_class.prep = nop_prep
nop_class.on_cqe = nop_on_cqe


cdef measure():
    """Find out where in a RoundTrip its parts are: all are laid out alike."""
    global request_offset
    cdef RoundTrip sample = RoundTrip.__new__(RoundTrip)
    request_offset = <char *>&sample.request - <char *>&sample.head
    nop_class.owner_offset = <char *>&sample.request - <char *><PyObject *>sample


measure()


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def round_trip(self, callback=..., *, data=None, priority=0, ref=True, start=True):
    """Create a ``RoundTrip``; a decorator when ``callback`` is left out."""
    if callback is ...:
        return decorator(RoundTrip, self, (), data, priority, ref, start, {})
    return RoundTrip(self, callback, data=data, priority=priority, ref=ref, start=start)


add_method("round_trip", round_trip)
