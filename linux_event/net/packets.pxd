# packets.pxd: the C structs and functions of include/le_datagram.h.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from linux_event.core cimport le_flush, le_loop, le_many, le_op, le_op_verdict, le_operation
from linux_event.liburing cimport io_uring_sqe
from linux_event.linux cimport msghdr, sockaddr

cdef extern from "le_datagram.h" nogil:
    enum: LE_DATAGRAM_FULL, LE_DATAGRAM_PARTS, LE_DATAGRAM_PAUSE_MIN_NS
    const uint32_t LE_DATAGRAM_ATTENTION
    enum le_datagram_flag:
        LE_DATAGRAM_PAUSED, LE_DATAGRAM_PARKED, LE_DATAGRAM_ABOVE, LE_DATAGRAM_FAILED, LE_DATAGRAM_CLOSING, LE_DATAGRAM_ENDING
        LE_DATAGRAM_BLOCKED, LE_DATAGRAM_UNIX, LE_DATAGRAM_CONNECTED, LE_DATAGRAM_OWNED
    struct io_uring_recvmsg_out:
        uint32_t namelen, payloadlen, flags
    struct le_packet:
        void *data
        void *peer
        const char *at
        const sockaddr *name
        uint32_t size, name_length
    struct le_datagram:
        le_many many
        le_op writable
        le_flush flush
        le_operation *operation
        le_loop *loop
        void (*hold)(void *object) noexcept nogil
        void (*drop)(void *object) noexcept nogil
        msghdr layout
        uint64_t queued, high, low
        void *refused_peer
        int64_t pause_ns
        uint32_t refused_size
        int32_t failed, earlier, fd
        uint32_t flags
    void le_datagram_collect(le_datagram *datagram)
    uint64_t le_datagram_count(const le_datagram *datagram)
    bint le_datagram_is_above(const le_datagram *datagram)
    bint le_datagram_is_drained(const le_datagram *datagram)
    int le_datagram_push(le_datagram *datagram, const le_packet *packet)
    void le_datagram_forget_refused(le_datagram *datagram)
    void le_datagram_drop_queue(le_datagram *datagram)
    void le_datagram_free(le_datagram *datagram)
    void le_datagram_flush_later(le_datagram *datagram)
    bint le_datagram_on_flush(le_loop *loop, le_flush *flush)
    void le_datagram_pause(le_datagram *datagram, int64_t pause_ns)
    void le_datagram_settle(le_datagram *datagram, const le_op *last)
    void le_datagram_prep_writable(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_datagram_on_writable(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_datagram_prep_recv(le_datagram *datagram, uint32_t name_room)
    le_op_verdict le_datagram_on_recv(le_datagram *datagram, le_op *op, int32_t result, uint32_t flags)
    void le_datagram_drop_input(le_datagram *datagram)
    const io_uring_recvmsg_out *le_datagram_head(const le_datagram *datagram, uint32_t number)
    const char *le_datagram_name(const io_uring_recvmsg_out *head)
    const char *le_datagram_data(const le_datagram *datagram, const io_uring_recvmsg_out *head)
