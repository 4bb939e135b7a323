# core.pxd: the C structs and functions of include/le_*.h.

from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from linux_event.liburing cimport io_uring, io_uring_sqe

cdef extern from *:
    """
    /* The Python object around a le_watcher, which is its first field. */
    #define LE_WATCHER_OBJECT(watcher) ((PyObject *)((char *)(watcher) - sizeof(PyObject)))
    """
    PyObject *LE_WATCHER_OBJECT(const void *watcher) nogil

cdef extern from "le_clock.h" nogil:
    const int64_t LE_NS_MAX
    const int64_t LE_NS_NEVER
    const int64_t LE_NS_PER_S
    int64_t le_clock_ns()
    int64_t le_clock_after(int64_t now_ns, int64_t after_ns)

cdef extern from "le_list.h" nogil:
    struct le_link:
        le_link *next
        le_link *prev
    void le_list_init(le_link *head)
    bint le_list_is_empty(const le_link *head)
    void le_list_push(le_link *head, le_link *link)
    void le_link_leave(le_link *link)

cdef extern from "le_ring.h" nogil:
    const int64_t LE_WAIT_FOREVER
    const uint32_t LE_RING_ABI
    struct le_ring
    struct le_ring_ops:
        uint32_t abi
        int (*open)(le_ring *ring, uint32_t entries, uint32_t cq_entries, uint32_t flags) noexcept nogil
        int (*enable)(le_ring *ring) noexcept nogil
        int (*enter)(le_ring *ring, uint32_t wait_nr, int64_t timeout_ns) noexcept nogil
        void (*close)(le_ring *ring) noexcept nogil
    struct le_ring:
        io_uring uring
        const le_ring_ops *ops
        uint64_t syscalls
        uint64_t submissions
        uint64_t cq_overflows
        uint32_t enter_flags
        bint is_open
        bint is_enabled
        bint is_polled
    uint32_t le_ring_publish(le_ring *ring)
    uint32_t le_ring_sq_flags(const le_ring *ring)
    uint32_t le_ring_cq_ready(const le_ring *ring)
    bint le_ring_is_flagged(const le_ring *ring)

cdef extern from "le_op.h" nogil:
    enum: LE_OP_ABI
    enum le_op_state:
        LE_OP_IDLE
        LE_OP_QUEUED
        LE_OP_IN_FLIGHT
        LE_OP_FINISHED
    enum le_op_verdict:
        LE_OP_END
        LE_OP_AGAIN
        LE_OP_LATER
    struct le_op
    struct le_op_class:
        uint32_t abi
        uint32_t owner_offset
        const char *name
        void (*prep)(le_op *op, io_uring_sqe *sqe) noexcept nogil
        le_op_verdict (*on_cqe)(le_loop *loop, le_op *op, int32_t result, uint32_t flags) noexcept nogil
        uint64_t interest
    enum le_op_interest:
        LE_OP_UNTIL_STOPPED, LE_OP_EVERY_COMPLETION, LE_OP_EVERY_READ
    struct le_op:
        le_link link
        const le_op_class *cls
        uint8_t state
        bint linked
        uint16_t bits
        int32_t fd
    void *le_op_owner(const le_op *op)
    le_op *LE_OP_OF_LINK(le_link *link)

cdef extern from "le_watcher.h":
    enum: LE_WATCHER_ABI
    enum: LE_PRIORITY_MIN
    enum: LE_PRIORITY_MAX
    enum: LE_PRIORITIES
    const uint32_t LE_NOT_IN_HEAP
    enum le_watcher_flag:
        LE_WATCHER_ACTIVE
        LE_WATCHER_REF
        LE_WATCHER_DESTROYED
        LE_WATCHER_PENDING
        LE_WATCHER_RECHECK
        LE_WATCHER_LEVEL
    enum le_lane:
        LE_LANE_TIMERS
        LE_LANE_COMPLETIONS
    # A function reports a Python exception by -1. The type is declared without one, because the loop looks at the result
    # itself: setting up an exception handler for every event would cost more than the call.
    ctypedef int (*le_watcher_function)(void *watcher) noexcept
    struct le_watcher_class:
        uint32_t abi
        const char *name
        le_watcher_function on_start
        le_watcher_function on_stop
        le_watcher_function on_dispatch
        le_watcher_function on_destroy
        le_watcher_function on_release
    struct le_watcher:
        le_link link
        const le_watcher_class *cls
        uint64_t id
        uint32_t heap_slot
        uint16_t events
        int8_t priority
        uint8_t flags

cdef extern from "le_watcher.h":
    struct le_notified:
        le_link link
        le_watcher *watcher
        uint64_t count
    struct le_idle:
        le_link link
        le_watcher *watcher

cdef extern from "le_heap.h" nogil:
    struct le_heap_entry:
        int64_t deadline_ns
    struct le_heap:
        le_heap_entry *entries
        uint32_t count
    int le_heap_add(le_heap *heap, le_watcher *watcher, int64_t deadline_ns)
    void le_heap_remove(le_heap *heap, le_watcher *watcher)
    int64_t le_heap_deadline_ns(const le_heap *heap, const le_watcher *watcher)

cdef extern from "le_fifo.h" nogil:
    struct le_call:
        void *callable
        void *args
    struct le_fifo:
        uint64_t head
        uint64_t tail
    uint64_t le_fifo_count(const le_fifo *fifo)
    le_call *le_fifo_at(const le_fifo *fifo, uint64_t position)
    int le_fifo_push(le_fifo *fifo, void *callable, void *args)
    le_call le_fifo_pop(le_fifo *fifo)
    void le_fifo_trim(le_fifo *fifo)

cdef extern from "le_table.h" nogil:
    struct le_table:
        le_watcher **slots
        uint64_t capacity
        uint64_t count
    struct le_chain:
        le_chain *next
        le_watcher *watcher
    struct le_index:
        le_chain **heads
        uint32_t capacity
        uint32_t keys
    int le_table_add(le_table *table, le_watcher *watcher)
    le_watcher *le_table_get(const le_table *table, uint64_t id)
    void le_table_remove(le_table *table, const le_watcher *watcher)
    le_chain *le_index_first(const le_index *index, uint32_t key)
    int le_index_add(le_index *index, uint32_t key, le_chain *link, le_watcher *watcher)
    void le_index_remove(le_index *index, uint32_t key, le_chain *link)

cdef extern from "le_results.h" nogil:
    struct le_result:
        int32_t result
        uint32_t flags
    struct le_results:
        uint32_t used
    struct le_result_queue:
        uint32_t first
    int le_results_reserve(le_results *results, uint64_t capacity)
    const le_result *le_results_first(const le_results *results, const le_result_queue *queue)
    void le_results_drop(le_results *results, le_result_queue *queue)

cdef extern from "le_pool.h" nogil:
    struct le_pool:
        le_link link
        le_link waiting
        void *ring
        uint64_t exhausted
        uint64_t grown
        uint32_t size
        uint32_t count
        uint32_t count_max
        uint32_t entries
        uint32_t provided
        uint32_t in_use
        uint32_t users
        uint16_t group
    le_pool *LE_POOL_OF_LINK(le_link *link)
    int le_pool_allocate(le_pool *pool, uint32_t size, uint32_t count_max)
    void le_pool_free(le_pool *pool)
    char *le_pool_buffer(const le_pool *pool, uint32_t number)
    void le_pool_grow(le_pool *pool, uint32_t count)
    void le_pool_give(le_pool *pool, uint32_t number)

cdef extern from "le_slots.h" nogil:
    enum: LE_SLOTS
    enum: LE_SLOT_NONE
    enum: LE_SLOT_SIZE
    enum le_slots_state:
        LE_SLOTS_UNUSED
        LE_SLOTS_DIRECT
        LE_SLOTS_PLAIN
    struct le_turn:
        int (*begin)(le_loop *loop, le_turn *turn) noexcept nogil
        void *owner
        int32_t slot
    struct le_slots:
        le_link waiting
        uint32_t free_count
        uint8_t state
    int le_slots_open(le_slots *slots, bint is_direct, uint32_t first)
    uint32_t le_slots_used(const le_slots *slots)
    bint le_turn_enter(le_slots *slots, le_turn *turn)
    le_turn *le_turn_leave(le_slots *slots, le_turn *turn)

cdef extern from "le_pipes.h" nogil:
    struct le_pipe:
        int read_fd
        int write_fd
    struct le_pipes:
        uint32_t count
    void le_pipe_close(le_pipe *pipe)
    void le_pipes_close(le_pipes *pipes)

cdef extern from "le_loop.h" nogil:
    enum le_loop_state:
        LE_LOOP_OPEN
        LE_LOOP_CLOSED
        LE_LOOP_FORKED
    struct le_loop:
        le_ring ring
        le_link to_arm
        le_link chain
        le_link to_rearm
        le_link to_cancel
        le_link in_flight
        le_link finished
        le_link recheck
        le_link idle
        le_link notified
        le_link operations
        uint64_t pending
        le_results results
        le_link pools
        uint64_t waiting
        le_link to_flush
        le_heap heap
        le_fifo deferred
        le_table watchers
        le_index by_fd
        le_index by_signal
        le_index by_child
        le_slots slots
        le_pipes pipes
        uint64_t next_id
        uint64_t active
        uint64_t active_ref
        uint64_t operation_count
        uint64_t streams
        uint64_t listeners
        uint64_t datagrams
        uint64_t requests
        uint64_t own_requests
        uint64_t cancelling
        uint64_t iterations
        uint64_t callbacks
        uint64_t completions
        uint64_t other_syscalls
        void (*on_recheck)(le_loop *loop, bint only_everything) noexcept nogil
        uint8_t state
        bint is_running
        bint is_asleep
        bint is_woken
        bint is_stopping
        bint is_chaining
        uint32_t chain_length
        le_op *inbox
        uint64_t more_results
        uint32_t raw_chain_length
        uint16_t next_group
        bint is_reordered
        bint is_signalled
        bint is_embedded
    struct le_flush:
        le_link link
        bint (*on_flush)(le_loop *loop, le_flush *flush) noexcept nogil
    bint le_loop_flush(le_loop *loop)
    void le_loop_init(le_loop *loop)
    void le_loop_free(le_loop *loop)
    ctypedef int (*le_visit)(void *object, void *arg) noexcept nogil
    int le_loop_visit(const le_loop *loop, size_t watcher_offset, le_visit visit, void *arg)
    void le_op_move(le_op *op, le_op_state state, le_link *list)
    bint le_op_start(le_loop *loop, le_op *op)
    bint le_op_stop(le_loop *loop, le_op *op)
    le_op *le_op_next_finished(le_loop *loop)
    void le_loop_take_rearmed(le_loop *loop)
    bint le_loop_fill(le_loop *loop)
    bint le_loop_has_queued(const le_loop *loop)
    bint le_loop_can_feed(const le_loop *loop)
    uint64_t le_loop_buffers_in_use(const le_loop *loop)
    bint le_loop_wants_enter(const le_loop *loop)
    void le_loop_abandon(le_loop *loop)
    void le_loop_reap(le_loop *loop)
    bint le_watcher_is(const le_watcher *watcher, le_watcher_flag flag)
    bint le_watcher_activate(le_loop *loop, le_watcher *watcher)
    bint le_watcher_deactivate(le_loop *loop, le_watcher *watcher)
    void le_watcher_unpend(le_loop *loop, le_watcher *watcher)
    void le_watcher_collect(le_loop *loop, le_watcher *watcher, le_lane lane)
    void le_watcher_prioritize(le_loop *loop, le_watcher *watcher, int8_t priority)
    void le_loop_uncollect(le_loop *loop)
    le_watcher *le_lane_pop(le_loop *loop, le_lane lane, unsigned rank)
    void le_loop_collect_timers(le_loop *loop, int64_t now_ns)
    void le_loop_collect_idle(le_loop *loop)
    void le_loop_collect_notified(le_loop *loop)

cdef extern from "le_operation.h" nogil:
    enum le_operation_flag:
        LE_OPERATION_CANCELLED
        LE_OPERATION_TIMED_OUT
        LE_OPERATION_ENDED
        LE_OPERATION_DONE
        LE_OPERATION_CHAINED
        LE_OPERATION_KEPT
        LE_OPERATION_SETTLED
        LE_OPERATION_LENIENT
        LE_OPERATION_RAISED
    struct le_operation:
        le_watcher head
        le_link link
        le_op op
        io_uring_sqe sqe
        int64_t result
        uint64_t total
        uint32_t cqe_flags
        uint32_t flags
        le_operation *leader
    le_operation *LE_OPERATION_OF_OP(le_op *op)
    le_operation *LE_OPERATION_OF_LINK(le_link *link)

cdef extern from "le_outcome.h" nogil:
    const uint32_t LE_PART_MAX
    void le_operation_enter(le_loop *loop, le_operation *operation)
    void le_operation_hold(le_loop *loop, le_operation *operation)
    void le_operation_break(le_operation *operation)
    void le_chain_release(le_loop *loop, uint8_t link_flag)
    void le_operation_leave(le_loop *loop, le_operation *operation)
    void le_operation_end(le_loop *loop, le_operation *operation, int64_t result)
    bint le_operation_is_unwanted(const le_operation *operation)
    void le_operation_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_operation_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    le_op_verdict le_operation_on_part(le_loop *loop, le_op *op, int32_t result, uint32_t flags)

cdef extern from "le_raw.h" nogil:
    struct le_raw:
        int32_t *pipe
        uint32_t count
        uint8_t flags
        bint opens_fd
    le_raw *le_raw_of(le_operation *operation)
    void le_raw_begin(le_raw *raw, le_operation *operation)
    void le_raw_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_raw_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    le_result le_raw_pop(le_loop *loop, le_operation *operation)
    void le_raw_drop(const le_raw *raw, int64_t result)
    void le_raw_drop_all(le_loop *loop, le_operation *operation)
    uint32_t le_raw_chain(le_loop *loop, const le_op_class *first, const le_op_class *last, le_op **before)
    void le_raw_link(le_op *before, le_op *op)
    bint le_raw_is_full(const le_loop *loop)
    uint64_t le_raw_queued(const le_loop *loop)
    void le_raw_fill(io_uring_sqe *sqe, uint8_t opcode, int fd, uint64_t addr, uint32_t len, uint64_t off)
    le_op_verdict le_message_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)

cdef extern from "le_many.h" nogil:
    const unsigned IORING_CQE_BUFFER_SHIFT
    const unsigned IORING_CQE_F_SOCK_NONEMPTY
    enum le_shortage:
        LE_SHORTAGE_NONE
        LE_SHORTAGE_NEW
        LE_SHORTAGE_WAITS
    struct le_many:
        le_link link
        le_op *op
        le_op hangup
        le_pool *pool
        le_pool *other
        int64_t deadline_ns
        le_result_queue results
        int32_t outcome
        bint is_over
        uint8_t shortage
        bint is_timed
        bint is_datagram
        bint is_big
        bint is_moving
        uint8_t streak
    le_pool *le_many_pool(const le_many *many, uint32_t flags)
    void le_many_move(le_many *many, le_operation *operation)
    void le_many_leave(le_loop *loop, le_many *many)
    le_op *le_pool_pop_waiting(le_loop *loop, le_pool *pool)
    void le_many_drop(le_loop *loop, le_many *many)
    void le_many_end(le_loop *loop, le_many *many, int32_t outcome, const le_op *other)
    le_op_verdict le_many_on_cqe(le_loop *loop, le_op *op, le_many *many, int32_t result, uint32_t flags)
    bint le_op_is_out(const le_op *op)
    void le_many_prep(le_op *op, le_many *many, io_uring_sqe *sqe)
    void le_many_prep_hangup(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_many_on_hangup(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_many_prep_recv(le_operation *operation, le_many *many, int fd)
    void le_many_prep_accept(le_operation *operation, int fd)

cdef extern from "le_read_file.h" nogil:
    enum: LE_READ_OPS
    struct le_read_host:
        char *(*grow)(le_read_file *file, uint64_t capacity) noexcept nogil
        void (*hold)(void *owner) noexcept nogil
    struct le_read_file:
        le_turn turn
        le_op *ops
        le_operation *operation
        const le_read_host *host
        const char *path
        char *memory
        void *grown
        uint64_t used
        int32_t fd
    void le_read_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_read_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    int le_read_begin(le_loop *loop, le_turn *turn)
    int le_read_abort(le_loop *loop, le_read_file *file)

cdef extern from "le_write_file.h" nogil:
    enum: LE_WRITE_DIGITS
    struct le_write_file:
        le_turn turn
        le_op op
        le_operation *operation
        const char *path
        const char *folder
        char *beside
        char *digits
        const char *data
        uint64_t total
        uint32_t flags
        uint32_t mode
        int32_t fd
        int32_t folder_fd
        bint is_synced
    void le_write_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_write_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    int le_write_begin(le_loop *loop, le_turn *turn)
    int le_write_abort(le_loop *loop, le_write_file *file)

cdef extern from "le_transfer.h" nogil:
    enum le_transfer_stage:
        LE_TRANSFER_PAIR
        LE_TRANSFER_WAIT_OUT
    struct le_transfer:
        le_op fill
        le_pipe pipe
        int32_t in_fd
        int32_t out_fd
        int32_t failure
        int64_t in_offset
        int64_t out_offset
        uint64_t size
        uint64_t left
        uint64_t held
        uint64_t moved
        char *buffer
        uint8_t stage
        bint is_starved
        bint is_sparse
        bint may_link
        bint may_buffer
        bint fill_closes
    void le_transfer_init(le_transfer *transfer)
    void le_transfer_release(le_loop *loop, le_transfer *transfer)
    bint le_transfer_is_over(const le_transfer *transfer)
    bint le_transfer_next(le_loop *loop, le_transfer *transfer, io_uring_sqe *sqe)
    void le_transfer_answer(le_transfer *transfer, int32_t result)
    void le_fill_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_fill_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    bint le_fill_start(le_loop *loop, le_transfer *transfer, le_link *list)

cdef extern from "le_retry.h" nogil:
    struct le_retry:
        pass
    void le_retry_init(le_operation *operation, le_retry *retry, bint can_poll)
    le_op_verdict le_retry_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    le_op_verdict le_retry_on_part(le_loop *loop, le_op *op, int32_t result, uint32_t flags)

cdef extern from "le_wakers.h" nogil:
    struct le_deadline:
        le_op op
        int64_t at_ns
    void le_waker_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_waker_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    le_op_verdict le_signal_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_deadline_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_deadline_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    void le_deadline_set(le_loop *loop, le_deadline *deadline, int64_t at_ns)

cdef extern from "le_reader.h" nogil:
    struct le_reader:
        le_op op
        char *buffer
        void (*on_records)(le_loop *loop, le_reader *reader) noexcept nogil
        uint64_t position
        uint32_t size
        uint32_t filled
        uint32_t taken
        int32_t error
    void le_reader_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_reader_on_cqe(le_loop *loop, le_op *op, int32_t result, uint32_t flags)
    uint32_t le_reader_left(const le_reader *reader)
    uint64_t le_reader_position(const le_reader *reader)

cdef extern from "le_poll.h" nogil:
    enum le_event:
        LE_EVENT_ERROR
        LE_EVENT_HANGUP
        LE_EVENT_PRIORITY
    struct le_poll:
        le_op op
        le_chain chain
    enum le_poll_bit:
        LE_POLL_WANTED
        LE_POLL_EDGE
        LE_POLL_ALWAYS_READY
        LE_POLL_INVALID
        LE_POLL_CHECKED
    void le_poll_prep(le_op *op, io_uring_sqe *sqe)
    le_op_verdict le_poll_complete(le_loop *loop, le_poll *poll, le_watcher *watcher, int32_t result)
    void le_recheck_push(le_loop *loop, le_watcher *watcher)
    void le_recheck(le_loop *loop, ptrdiff_t poll_offset, bint only_everything)

cdef extern from "le_verify.h" nogil:
    void le_verify(const le_loop *loop)

cdef extern from "le_signal.h" nogil:
    enum: LE_SIGNAL_MAX
    struct le_signal_record:
        int32_t signum
        int32_t code
        int32_t pid
        uint32_t uid
        int32_t status
        int32_t value
    struct le_signal_hub:
        le_signal_hub *next
        int fd
        int reader_fd
        uint32_t users[]
    struct le_signal_queue:
        le_signal_record *records
        uint32_t count
    struct le_signal_member:
        le_link link
        le_watcher *watcher
        le_signal_queue queue
        int signum
    void le_signal_hub_collect(le_loop *loop, le_signal_hub *hub, const le_link *members)
    void le_signal_hub_init(le_signal_hub *hub)
    void le_signal_hub_add(le_signal_hub *hub, int signum)
    void le_signal_hub_remove(le_signal_hub *hub, int signum)
    int le_signal_queue_reserve(le_signal_queue *queue)
    le_signal_record le_signal_queue_pop(le_signal_queue *queue)
    void le_signal_queue_free(le_signal_queue *queue)

cdef extern from "le_signalfd.h" nogil:
    struct le_signalfd:
        le_reader reader
        le_signal_hub *hub
        const le_link *members
        uint64_t watched
