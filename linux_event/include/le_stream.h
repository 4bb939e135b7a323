/* le_stream.h: the two directions of a stream, without Python.
 *
 * Receiving is an operation with many results, see le_many.h. Sending is one more request: what is written waits in a queue
 * of pieces, and right before the system call all that is in it becomes one send. So what is written within an iteration
 * leaves together, and no two sends are in flight at a time, whose bytes might mingle. What a send has not taken is sent by
 * the next one.
 *
 * The fd is closed as soon as the kernel has let go of all requests on it, by the last completion itself: before that the
 * other end would not see the end, and after that nothing has to be waited for. */
#ifndef LE_STREAM_H
#define LE_STREAM_H

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "le_chunks.h"
#include "le_many.h"

/* Writes of up to this many bytes are copied, so that many of them make one piece. */
#define LE_COPY_MAX 4096u
/* Receiving so much at a time, twice in a row, it is taken for a big stream; receiving less, sixteen times, for a small one. */
#define LE_BIG_PIECE 16384
#define LE_BIG_STREAK 2
#define LE_SMALL_STREAK 16
#define LE_BIG_BYTES (256 << 10) /* what a big one receives at a time */
/* How many pieces a send that is tried at once takes. */
#define LE_TRY_PIECES 16

enum le_stream_flag {
    LE_STREAM_BEGUN = 1,         /* it may receive */
    LE_STREAM_PAUSED = 2,        /* nothing is to be handed over for the time being */
    LE_STREAM_PARKED = 4,        /* some data have left the pool and wait for the pause to end */
    LE_STREAM_EOF = 8,           /* the end of the data has been told */
    LE_STREAM_EOF_WANTED = 16,   /* write_eof() was called */
    LE_STREAM_SHUT = 32,         /* and has been done */
    LE_STREAM_ABOVE = 64,        /* write() has returned False, and on_drain was not called since */
    LE_STREAM_CLOSING = 128,     /* close() was called: it ends when all is sent */
    LE_STREAM_BROKEN = 256,      /* nothing can be sent any more: `error` says why */
    LE_STREAM_ENDING = 512,      /* its requests are being ended: nothing is handed over but the end */
    LE_STREAM_SPENT = 1024,      /* there are objects in `spent` */
    LE_STREAM_HUNG = 2048,       /* the other end has gone while nothing is received */
    LE_STREAM_NO_SOCKET = 4096,  /* a pipe, or whatever else */
    LE_STREAM_NO_READING = 8192,  /* one direction only */
    LE_STREAM_NO_WRITING = 16384,
    LE_STREAM_SINGLE = 32768,    /* each receive is a request of its own, see le_many.h */
    LE_STREAM_GROWING = 65536,   /* it becomes a big one when the receive in flight has ended */
    LE_STREAM_BIG = 131072,      /* much comes at a time: it is polled, and dispatch receives */
    LE_STREAM_READY = 262144,    /* and there is something */
    LE_STREAM_GATHERED = 524288, /* the filter has something to send */
    LE_STREAM_NO_FLAGS = 1048576, /* the kernel does not know RWF_NOSIGNAL */
    LE_STREAM_TOLD = 2097152,    /* on_eof was called */
};

/* Dispatch has more to look at than data that have come. */
#define LE_STREAM_ATTENTION                                                                                            \
    (LE_STREAM_PAUSED | LE_STREAM_PARKED | LE_STREAM_EOF | LE_STREAM_EOF_WANTED | LE_STREAM_ABOVE | LE_STREAM_CLOSING |  \
     LE_STREAM_BROKEN | LE_STREAM_ENDING | LE_STREAM_SPENT | LE_STREAM_HUNG | LE_STREAM_READY |       \
     LE_STREAM_GATHERED)

/* What it asks of the code around it: to drop a reference on a bytes object. */
typedef void (*le_stream_drop)(void *bytes);

struct le_stream {
    struct le_many many;
    struct le_op send;
    struct le_operation *operation; /* that it belongs to */
    struct le_loop *loop;
    le_stream_drop drop;
    struct le_piece *first; /* the queue of what is to be sent; the first ones may be with the kernel */
    struct le_piece *last;
    struct le_chunk *vector; /* the iovecs of the send in flight */
    struct le_piece *spent;  /* sent, their objects still to be let go of */
    struct le_piece near;    /* the place of one piece; owner NULL: free */
    uint64_t queued;         /* bytes in the queue */
    uint64_t high;
    uint64_t low;
    int64_t idle_ns;   /* the idle timeout; 0: none */
    int64_t active_ns; /* when bytes have moved last; kept only where there is an idle timeout */
    int32_t fd;        /* -1: closed */
    int32_t error;     /* an errno, once it is broken */
    uint32_t flags;    /* enum le_stream_flag */
    uint32_t reserved;
};
_Static_assert(sizeof(struct le_stream) == 112 + 32 + 7 * 8 + 40 + 5 * 8 + 16, "le_stream has no hidden padding");

#define LE_STREAM_OF_SEND(pointer) LE_CONTAINER(pointer, struct le_stream, send)
#define LE_STREAM_OF_HANGUP(pointer) LE_CONTAINER(pointer, struct le_stream, many.hangup)

static inline int le_stream_is(const struct le_stream *stream, uint32_t flags)
{
    return (stream->flags & flags) != 0;
}

/* -- The queue -------------------------------------------------------------------------------------------------------- */

static inline void le_stream_append(struct le_stream *stream, struct le_piece *piece)
{
    piece->next = NULL;
    if (stream->last)
        stream->last->next = piece;
    else
        stream->first = piece;
    stream->last = piece;
}

/* Let go of a piece that has left the queue. */
static inline void le_stream_release(struct le_stream *stream, struct le_piece *piece)
{
    switch (piece->kind) {
    case LE_PIECE_CHUNK:
        le_chunk_give(&stream->loop->chunks, (struct le_chunk *)piece);
        break;
    case LE_PIECE_VIEW:
        piece->next = stream->spent;
        stream->spent = piece;
        stream->flags |= LE_STREAM_SPENT;
        break;
    default:
        stream->drop(piece->owner);
        piece->owner = NULL;
        if (piece->kind == LE_PIECE_BYTES)
            free(piece);
    }
}

/* So many bytes have been sent. */
static inline void le_stream_consume(struct le_stream *stream, size_t count)
{
    LE_ASSERT(count <= stream->queued);
    stream->queued -= count;
    while (count) {
        struct le_piece *piece = stream->first;
        if (count < piece->left) {
            piece->at += count;
            piece->left -= count;
            return;
        }
        count -= piece->left;
        stream->first = piece->next;
        if (!piece->next)
            stream->last = NULL;
        le_stream_release(stream, piece);
    }
}

static inline void le_stream_drop_queue(struct le_stream *stream)
{
    le_stream_consume(stream, stream->queued);
}

/* Whether the kernel may be reading what is in the queue. */
static inline int le_stream_is_sending(const struct le_stream *stream)
{
    return le_op_is_out(&stream->send) && stream->send.state != LE_OP_QUEUED;
}

/* Append a copy of some bytes, LE_COPY_MAX at most. Returns 0, or -1 without memory. */
static inline int le_stream_copy(struct le_stream *stream, const char *at, size_t size)
{
    struct le_piece *last = stream->last;
    struct le_chunk *chunk;
    if (!last || last->kind != LE_PIECE_CHUNK || last->room < size) {
        if (!(chunk = le_chunk_take(&stream->loop->chunks)))
            return -1;
        if (last && last->kind == LE_PIECE_NEAR && last == stream->first && last->left <= LE_COPY_MAX &&
            !le_stream_is_sending(stream)) {
            /* Two small ones are better sent as one. */
            memcpy(chunk->data, last->at, last->left);
            chunk->piece.left = last->left;
            chunk->piece.room -= (uint32_t)last->left;
            le_stream_release(stream, last);
            stream->first = stream->last = NULL;
        }
        le_stream_append(stream, &chunk->piece);
        last = &chunk->piece;
    }
    memcpy((char *)last + LE_CHUNK_BYTES - last->room, at, size);
    last->left += size;
    last->room -= (uint32_t)size;
    stream->queued += size;
    return 0;
}

/* Append bytes that stay where they are; the caller has taken a reference on their object. Returns 0, or -1 without memory. */
static inline int le_stream_refer(struct le_stream *stream, const char *at, size_t size, void *owner, int is_view)
{
    struct le_piece *piece = &stream->near;
    if (is_view || piece->owner) {
        piece = (struct le_piece *)malloc(sizeof *piece);
        if (!piece)
            return -1;
        piece->kind = is_view ? LE_PIECE_VIEW : LE_PIECE_BYTES;
    }
    piece->at = at;
    piece->left = size;
    piece->owner = owner;
    piece->room = 0;
    le_stream_append(stream, piece);
    stream->queued += size;
    return 0;
}

static inline unsigned le_stream_gather(const struct le_stream *stream, struct iovec *vector, unsigned count_max)
{
    const struct le_piece *piece = stream->first;
    unsigned count = 0;
    size_t left = LE_PART_MAX; /* what one call moves at most */
    for (; piece && count < count_max && left; piece = piece->next, count++) {
        vector[count].iov_base = (void *)(uintptr_t)piece->at;
        vector[count].iov_len = piece->left < left ? piece->left : left;
        left -= vector[count].iov_len;
    }
    return count;
}

/* Try to send at once, while the data are in the cache. Only where no send is in flight. Returns 0 or a negative errno. */
static inline int le_stream_try(struct le_stream *stream)
{
    struct iovec vector[LE_TRY_PIECES];
    struct msghdr message = {.msg_iov = vector};
    ssize_t sent;
    message.msg_iovlen = le_stream_gather(stream, vector, LE_TRY_PIECES);
    stream->loop->other_syscalls++;
    sent = message.msg_iovlen == 1
               ? send(stream->fd, vector[0].iov_base, vector[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
               : sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? 0 : -errno;
    le_stream_consume(stream, (size_t)sent);
    return 0;
}

/* -- The requests ------------------------------------------------------------------------------------------------------ */

static inline int le_stream_is_out(const struct le_stream *stream, const struct le_op *but)
{
    const struct le_op *ops[] = {&stream->operation->op, &stream->many.hangup, &stream->send};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i] != but && le_op_is_out(ops[i]))
            return 1;
    return 0;
}

static inline void le_stream_collect(struct le_stream *stream)
{
    le_watcher_collect(stream->loop, &stream->operation->head, LE_LANE_COMPLETIONS);
}

/* The stream is ending. If the kernel has nothing of it but `last`, which has just completed, that is the end. */
static inline void le_stream_settle(struct le_stream *stream, const struct le_op *last)
{
    if (le_stream_is_out(stream, last))
        return;
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
    le_stream_collect(stream);
}

static inline void le_stream_is_active(struct le_stream *stream)
{
    if (stream->idle_ns)
        stream->active_ns = le_clock_ns();
}

/* Whether data are to be received. */
static inline int le_stream_wants(const struct le_stream *stream)
{
    return !le_stream_is(stream, LE_STREAM_PAUSED | LE_STREAM_EOF | LE_STREAM_CLOSING | LE_STREAM_ENDING);
}

/* What the receiving half asks for next. */
static inline void le_stream_prep_recv(struct le_stream *stream)
{
    struct le_operation *operation = stream->operation;
    if (le_stream_is(stream, LE_STREAM_BIG)) {
        io_uring_prep_poll_add(&operation->sqe, stream->fd, EPOLLIN);
    } else if (le_stream_is(stream, LE_STREAM_NO_SOCKET)) {
        /* A single one each time: what is left of more than a buffer holds must not wait for news. */
        io_uring_prep_read(&operation->sqe, stream->fd, NULL, 0, UINT64_MAX);
        operation->sqe.flags |= IOSQE_BUFFER_SELECT;
        operation->sqe.buf_group = stream->many.pool->group;
    } else {
        le_many_prep_recv(operation, &stream->many, stream->fd);
        if (le_stream_is(stream, LE_STREAM_SINGLE))
            operation->sqe.ioprio = 0;
    }
}

/* Where much comes at a time, two copies of it (into a buffer of the pool, and out of it) cost more than a system call: the
 * request is a poll then, and dispatch receives right into what the user gets, while the cache is hot. */
static inline int le_stream_weigh(struct le_stream *stream, const struct le_result *item)
{
    struct le_many *many = &stream->many;
    if (item->result < LE_BIG_PIECE || le_stream_is(stream, LE_STREAM_BIG | LE_STREAM_GROWING | LE_STREAM_NO_SOCKET)) {
        many->streak = 0;
        return 0;
    }
    return ++many->streak >= LE_BIG_STREAK;
}

/* Become a big one, or a small one again; at once, or when the request in flight has ended. Returns whether that has to be
 * cancelled by the caller. */
static inline int le_stream_resize(struct le_stream *stream)
{
    struct le_op *op = &stream->operation->op;
    stream->many.streak = 0;
    if (le_op_is_out(op) && op->state != LE_OP_QUEUED) {
        stream->flags |= LE_STREAM_GROWING;
        return 1;
    }
    stream->flags ^= LE_STREAM_BIG;
    le_stream_prep_recv(stream);
    return 0;
}

static inline enum le_op_verdict le_stream_on_recv(struct le_stream *stream, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_many *many = &stream->many;
    if (LE_UNLIKELY(le_stream_is(stream, LE_STREAM_CLOSING | LE_STREAM_ENDING))) {
        if (flags & IORING_CQE_F_BUFFER) {
            le_pool_take(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
            le_pool_give(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
        }
        if (!(flags & IORING_CQE_F_MORE) && le_stream_is(stream, LE_STREAM_ENDING))
            le_stream_settle(stream, op);
        return LE_OP_END;
    }
    if (le_stream_is(stream, LE_STREAM_BIG)) {
        if ((result == -EINTR || result == -EAGAIN || result == -ECANCELED) && le_stream_wants(stream))
            return LE_OP_AGAIN;
        stream->flags |= LE_STREAM_READY; /* an error too: receiving tells which */
        le_stream_collect(stream);
        return LE_OP_END;
    }
    le_stream_is_active(stream);
    enum le_op_verdict verdict = le_many_on_cqe(stream->loop, op, many, result, flags);
    if (LE_UNLIKELY(verdict != LE_OP_LATER && le_stream_is(stream, LE_STREAM_GROWING) && !(flags & IORING_CQE_F_MORE))) {
        stream->flags &= ~(uint32_t)LE_STREAM_GROWING;
        stream->flags ^= LE_STREAM_BIG;
        le_stream_prep_recv(stream);
        le_many_leave(stream->loop, many); /* it needs no buffer any more */
        verdict = many->is_over ? LE_OP_END : LE_OP_AGAIN;
    }
    if (LE_UNLIKELY(verdict != LE_OP_LATER && !le_stream_wants(stream))) {
        le_many_leave(stream->loop, many);
        if (le_stream_is(stream, LE_STREAM_HUNG)) /* dispatch has waited for this */
            le_stream_collect(stream);
        return LE_OP_END;
    }
    return verdict;
}

static inline enum le_op_verdict le_stream_on_hangup(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_stream *stream = LE_STREAM_OF_HANGUP(op);
    if (le_stream_is(stream, LE_STREAM_ENDING)) {
        le_stream_settle(stream, op);
        return LE_OP_END;
    }
    if (le_stream_is(stream, LE_STREAM_EOF | LE_STREAM_CLOSING) || stream->many.is_over)
        return LE_OP_END;
    if (result > 0) {
        stream->flags |= LE_STREAM_SINGLE;
        if (!le_stream_wants(stream)) {
            stream->flags |= LE_STREAM_HUNG;
            le_stream_collect(stream);
        }
    }
    return le_many_on_hangup(loop, op, result, flags);
}

/* A broken pipe is an error of the stream, never a signal. Older kernels send SIGPIPE to the thread that writes: where it is not
 * ignored, as it is by default in Python, a thread of the kernel writes, which takes no signals. */
static inline void le_stream_spare_signal(const struct le_stream *stream, struct io_uring_sqe *sqe)
{
    struct sigaction action;
    if (!le_stream_is(stream, LE_STREAM_NO_FLAGS))
        sqe->rw_flags = RWF_NOSIGNAL;
    else if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
        sqe->flags |= IOSQE_ASYNC;
}

static inline void le_stream_prep_send(struct le_op *op, struct io_uring_sqe *sqe)
{
    struct le_stream *stream = LE_STREAM_OF_SEND(op);
    struct le_piece *first = stream->first;
    int is_socket = !le_stream_is(stream, LE_STREAM_NO_SOCKET);
    struct msghdr *message = NULL;
    struct iovec *vector = NULL;
    unsigned count = 1;
    LE_ASSERT(first && !stream->vector);
    if (first->next && (stream->vector = le_chunk_take(&stream->loop->chunks))) {
        unsigned room = (unsigned)((sizeof stream->vector->data - sizeof *message) / sizeof *vector);
        message = (struct msghdr *)stream->vector->data;
        vector = (struct iovec *)(message + 1);
        memset(message, 0, sizeof *message);
        count = le_stream_gather(stream, vector, room);
        message->msg_iov = vector;
        message->msg_iovlen = count;
    }
    uint32_t size = first->left < LE_PART_MAX ? (uint32_t)first->left : LE_PART_MAX;
    if (vector && is_socket)
        io_uring_prep_sendmsg(sqe, stream->fd, message, MSG_NOSIGNAL);
    else if (vector)
        io_uring_prep_writev(sqe, stream->fd, vector, count, UINT64_MAX);
    else if (is_socket)
        io_uring_prep_send(sqe, stream->fd, first->at, size, MSG_NOSIGNAL);
    else
        io_uring_prep_write(sqe, stream->fd, first->at, size, UINT64_MAX);
    if (!is_socket)
        le_stream_spare_signal(stream, sqe);
}

/* Nothing can be sent any more. Where the other end has gone, what has come from it before may still be handed over: receiving
 * ends by itself then. After any other failure nothing says so, and the stream is over; also where the other end of a Unix socket
 * is still there, and has only said that it receives no more. */
static inline void le_stream_break(struct le_stream *stream, int32_t error)
{
    struct pollfd asked = {stream->fd, POLLRDHUP, 0};
    stream->flags |= LE_STREAM_BROKEN;
    if ((error != EPIPE && error != ECONNRESET) || (error == EPIPE && poll(&asked, 1, 0) == 0))
        stream->flags |= LE_STREAM_CLOSING;
    stream->error = error;
    le_stream_drop_queue(stream);
    le_stream_collect(stream);
}

static inline enum le_op_verdict le_stream_on_send(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_stream *stream = LE_STREAM_OF_SEND(op);
    (void)flags;
    if (stream->vector) {
        le_chunk_give(&loop->chunks, stream->vector);
        stream->vector = NULL;
    }
    if (result > 0) {
        le_stream_is_active(stream);
        le_stream_consume(stream, (size_t)result);
    }
    if (LE_UNLIKELY(le_stream_is(stream, LE_STREAM_ENDING))) {
        le_stream_settle(stream, op);
        return LE_OP_END;
    }
    if (LE_UNLIKELY(result == -EOPNOTSUPP && le_stream_is(stream, LE_STREAM_NO_SOCKET) &&
                    !le_stream_is(stream, LE_STREAM_NO_FLAGS))) {
        stream->flags |= LE_STREAM_NO_FLAGS;
        return LE_OP_AGAIN;
    }
    /* Of EAGAIN see le_retry.h; ECANCELED: the thread that has submitted it has ended. */
    if (LE_UNLIKELY(result <= 0 && result != -EINTR && result != -EAGAIN && result != -ECANCELED)) {
        le_stream_break(stream, result ? -result : EIO);
        return LE_OP_END;
    }
    if (LE_UNLIKELY(le_stream_is(stream, LE_STREAM_SPENT) ||
                    (le_stream_is(stream, LE_STREAM_ABOVE) && stream->queued <= stream->low) ||
                    (!stream->queued && le_stream_is(stream, LE_STREAM_EOF_WANTED | LE_STREAM_CLOSING))))
        le_stream_collect(stream);
    return stream->queued ? LE_OP_AGAIN : LE_OP_END;
}

/* -- The end ------------------------------------------------------------------------------------------------------------ */

/* Bytes that the other end of a TCP connection has not acknowledged. */
static inline int le_stream_unsent(const struct le_stream *stream)
{
    int protocol = 0, count = 0;
    socklen_t size = sizeof protocol;
    if (getsockopt(stream->fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) || protocol != IPPROTO_TCP)
        return 0;
    return ioctl(stream->fd, SIOCOUTQ, &count) ? 0 : count;
}

/* Drop what was received and not handed over. */
static inline void le_stream_drop_input(struct le_stream *stream)
{
    le_many_leave(stream->loop, &stream->many);
    le_many_drop(stream->loop, &stream->many);
}

#endif
