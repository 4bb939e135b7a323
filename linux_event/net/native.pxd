# native.pxd: the C structs and functions of include/le_stream.h.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from linux_event.core cimport le_loop, le_many, le_op, le_op_verdict, le_operation, le_result
from linux_event.liburing cimport io_uring_sqe

cdef extern from "le_stream.h" nogil:
    enum: LE_COPY_MAX, LE_BIG_PIECE, LE_SMALL_STREAK, LE_BIG_BYTES
    const uint32_t LE_STREAM_ATTENTION
    enum le_stream_flag:
        LE_STREAM_BEGUN, LE_STREAM_PAUSED, LE_STREAM_PARKED, LE_STREAM_EOF, LE_STREAM_EOF_WANTED, LE_STREAM_SHUT, LE_STREAM_ABOVE
        LE_STREAM_CLOSING, LE_STREAM_BROKEN, LE_STREAM_ENDING, LE_STREAM_SPENT, LE_STREAM_HUNG, LE_STREAM_NO_SOCKET
        LE_STREAM_NO_READING, LE_STREAM_NO_WRITING, LE_STREAM_BIG, LE_STREAM_READY, LE_STREAM_GATHERED
        LE_STREAM_TOLD
    struct le_piece:
        le_piece *next
        void *owner
    struct le_stream:
        le_many many
        le_op send
        le_operation *operation
        le_loop *loop
        void (*drop)(void *bytes) noexcept nogil
        le_piece *spent
        uint64_t queued
        uint64_t high
        uint64_t low
        int64_t idle_ns
        int64_t active_ns
        int32_t fd
        int32_t error
        uint32_t flags
    bint le_stream_is_sending(const le_stream *stream)
    int le_stream_copy(le_stream *stream, const char *at, size_t size)
    int le_stream_refer(le_stream *stream, const char *at, size_t size, void *owner, bint is_view)
    int le_stream_try(le_stream *stream)
    bint le_stream_is_out(const le_stream *stream, const le_op *but)
    void le_stream_collect(le_stream *stream)
    void le_stream_settle(le_stream *stream, const le_op *last)
    bint le_stream_wants(const le_stream *stream)
    void le_stream_prep_recv(le_stream *stream)
    bint le_stream_weigh(le_stream *stream, const le_result *item)
    bint le_stream_resize(le_stream *stream)
    void le_stream_is_active(le_stream *stream)
    le_op_verdict le_stream_on_recv(le_stream *stream, le_op *op, int32_t result, uint32_t flags)
    le_op_verdict le_stream_on_hangup(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_stream_prep_send(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_stream_on_send(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_stream_break(le_stream *stream, int32_t error)
    void le_stream_drop_queue(le_stream *stream)
    int le_stream_unsent(const le_stream *stream)
    void le_stream_drop_input(le_stream *stream)
