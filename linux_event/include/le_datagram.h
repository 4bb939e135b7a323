/* le_datagram.h: a socket for datagrams, without Python.
 *
 * Receiving is an operation with many results, see le_many.h: one multishot recvmsg. Into each buffer the kernel puts a head, the
 * address of the sender and the data. An empty datagram ends the multishot (Linux 6.18: what has received nothing is taken for
 * the end of the data), and is handed over like any other, for it has a buffer all the same; the request is armed again. So it
 * is after an error, which is that of an earlier datagram: receiving takes it off the socket.
 *
 * Sending is a queue, and one sendmmsg(2) right before the loop enters the kernel for all that was sent in an iteration (struct
 * le_flush). That is cheaper than a request for each: nothing has to be kept until a completion comes, and nothing wakes the loop
 * only to say that all is well. And it stops at the first datagram that is not taken, so that they leave in their order.
 *
 * Where there is no room the socket is polled. That does not help with a Unix socket that is not connected: it is always
 * writable, and what is full is the queue of a receiver. Datagrams for others go past those that wait for such a one; when
 * something else is sent, and after a pause, these are tried again. */
#ifndef LE_DATAGRAM_H
#define LE_DATAGRAM_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "le_many.h"

#define LE_DATAGRAM_PARTS 64u        /* what one system call takes */
#define LE_DATAGRAM_TURN 256u        /* and one iteration, of one socket */
#define LE_DATAGRAM_MANY 4096u       /* datagrams in the queue: above the mark, as too many bytes are */
#define LE_DATAGRAM_FULL 65536u      /* no more are taken */
#define LE_DATAGRAM_BLOCKED_MAX 16u  /* receivers without room that others go past */
#define LE_DATAGRAM_PAUSE_MIN_NS 1000000
#define LE_DATAGRAM_PAUSE_MAX_NS 16000000

enum le_datagram_flag {
    LE_DATAGRAM_PAUSED = 1,     /* nothing is to be handed over for the time being */
    LE_DATAGRAM_PARKED = 2,     /* some datagrams have left the pool and wait for the pause to end */
    LE_DATAGRAM_ABOVE = 4,      /* send() has returned False, and on_drain was not called since */
    LE_DATAGRAM_FAILED = 8,     /* an error is to be told; sending goes on then */
    LE_DATAGRAM_CLOSING = 16,   /* close() was called: it ends when all is sent */
    LE_DATAGRAM_ENDING = 32,    /* its requests are being ended: nothing is handed over but the end */
    LE_DATAGRAM_BLOCKED = 64,   /* nothing can be sent until a poll, or a pause, has ended */
    LE_DATAGRAM_UNIX = 128,
    LE_DATAGRAM_CONNECTED = 256,
    LE_DATAGRAM_OWNED = 512,    /* the fd is to be closed */
};

/* Dispatch has more to look at than datagrams that have come. */
#define LE_DATAGRAM_ATTENTION                                                                                             \
    (LE_DATAGRAM_PAUSED | LE_DATAGRAM_PARKED | LE_DATAGRAM_ABOVE | LE_DATAGRAM_FAILED | LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING)

/* A datagram to be sent. */
struct le_packet {
    void *data; /* the bytes object */
    void *peer; /* the object that `name` is in; NULL: the socket is connected */
    const char *at;
    const struct sockaddr *name;
    uint32_t size;
    uint32_t name_length;
};
_Static_assert(sizeof(struct le_packet) == 40, "le_packet has no hidden padding");

struct le_datagram {
    struct le_many many;
    struct le_op writable; /* polls until there is room */
    struct le_flush flush;
    struct le_operation *operation; /* that it belongs to */
    struct le_loop *loop;
    /* What it asks of the code around it: to take and to drop a reference. Dropping runs no code of others. */
    void (*hold)(void *object);
    void (*drop)(void *object);
    struct msghdr layout;      /* of what is received: room for an address */
    struct le_packet *packets; /* the queue, a ring of a power of two places */
    uint64_t head;             /* counts for ever; the place is the count modulo the capacity */
    uint64_t tail;
    uint64_t capacity;
    uint64_t queued; /* bytes in the queue */
    uint64_t high;
    uint64_t low;
    void *refused_peer; /* of the datagram that `failed` is about, or NULL */
    int64_t pause_ns;
    uint32_t refused_size;
    int32_t failed;  /* an errno: why a datagram was not sent */
    int32_t earlier; /* an errno: what has become of one that was sent before */
    int32_t fd;      /* -1: closed */
    uint32_t flags;  /* enum le_datagram_flag */
    uint32_t reserved;
};
_Static_assert(sizeof(struct le_datagram) == 112 + 32 + 24 + 4 * 8 + 56 + 9 * 8 + 24, "le_datagram has no hidden padding");

#define LE_DATAGRAM_OF_FLUSH(pointer) LE_CONTAINER(pointer, struct le_datagram, flush)
#define LE_DATAGRAM_OF_WRITABLE(pointer) LE_CONTAINER(pointer, struct le_datagram, writable)

static inline int le_datagram_is(const struct le_datagram *datagram, uint32_t flags)
{
    return (datagram->flags & flags) != 0;
}

static inline void le_datagram_collect(struct le_datagram *datagram)
{
    le_watcher_collect(datagram->loop, &datagram->operation->head, LE_LANE_COMPLETIONS);
}

/* -- The queue -------------------------------------------------------------------------------------------------------- */

static inline uint64_t le_datagram_count(const struct le_datagram *datagram)
{
    return datagram->tail - datagram->head;
}

static inline struct le_packet *le_datagram_at(const struct le_datagram *datagram, uint64_t position)
{
    return &datagram->packets[position & (datagram->capacity - 1)];
}

static inline int le_datagram_is_above(const struct le_datagram *datagram)
{
    return datagram->queued > datagram->high || le_datagram_count(datagram) > LE_DATAGRAM_MANY;
}

static inline int le_datagram_is_drained(const struct le_datagram *datagram)
{
    return datagram->queued <= datagram->low && le_datagram_count(datagram) <= LE_DATAGRAM_MANY / 4;
}

/* Append one; the caller takes references on its objects. Returns 0, or -1 without memory. */
static inline int le_datagram_push(struct le_datagram *datagram, const struct le_packet *packet)
{
    if (le_datagram_count(datagram) == datagram->capacity) {
        uint64_t capacity = datagram->capacity ? 2 * datagram->capacity : 8;
        struct le_packet *packets = (struct le_packet *)malloc(capacity * sizeof *packets);
        if (!packets)
            return -1;
        for (uint64_t position = datagram->head; position != datagram->tail; position++)
            packets[position & (capacity - 1)] = *le_datagram_at(datagram, position);
        free(datagram->packets);
        datagram->packets = packets;
        datagram->capacity = capacity;
    }
    *le_datagram_at(datagram, datagram->tail++) = *packet;
    datagram->queued += packet->size;
    return 0;
}

static inline void le_datagram_release(struct le_datagram *datagram, const struct le_packet *packet)
{
    datagram->queued -= packet->size;
    datagram->drop(packet->data);
    if (packet->peer)
        datagram->drop(packet->peer);
}

static inline void le_datagram_consume(struct le_datagram *datagram, unsigned count)
{
    LE_ASSERT(count <= le_datagram_count(datagram));
    while (count--)
        le_datagram_release(datagram, le_datagram_at(datagram, datagram->head++));
}

static inline void le_datagram_forget_refused(struct le_datagram *datagram)
{
    if (datagram->refused_peer)
        datagram->drop(datagram->refused_peer);
    datagram->refused_peer = NULL;
    datagram->failed = 0;
}

static inline void le_datagram_drop_queue(struct le_datagram *datagram)
{
    le_datagram_consume(datagram, (unsigned)le_datagram_count(datagram));
    le_datagram_forget_refused(datagram);
}

static inline void le_datagram_free(struct le_datagram *datagram)
{
    le_datagram_drop_queue(datagram);
    free(datagram->packets);
    datagram->packets = NULL;
    datagram->capacity = 0;
}

/* -- Sending ---------------------------------------------------------------------------------------------------------- */

/* Have the queue sent before the loop enters the kernel. */
static inline void le_datagram_flush_later(struct le_datagram *datagram)
{
    if (!le_link_is_in(&datagram->flush.link) && !le_datagram_is(datagram, LE_DATAGRAM_BLOCKED | LE_DATAGRAM_FAILED))
        le_list_push(&datagram->loop->to_flush, &datagram->flush.link);
}

static inline int le_is_no_room(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

/* Have it dispatched after a while, when the time has come to try again. */
static inline void le_datagram_pause(struct le_datagram *datagram, int64_t pause_ns)
{
    struct le_loop *loop = datagram->loop;
    struct le_watcher *head = &datagram->operation->head;
    if (head->heap_slot != LE_NOT_IN_HEAP) /* one at a time is enough, and none is longer than that */
        return;
    datagram->many.is_timed = 1;
    if (le_heap_add(&loop->heap, head, le_clock_after(le_clock_ns(), pause_ns)))
        le_datagram_collect(datagram); /* no memory for that: the time has come, then */
}

/* Send one. Returns 0 or an errno. */
static inline int le_datagram_send_one(struct le_datagram *datagram, const struct le_packet *packet)
{
    datagram->loop->other_syscalls++;
    return sendto(datagram->fd, packet->at, packet->size, MSG_DONTWAIT | MSG_NOSIGNAL, packet->name_length ? packet->name : NULL,
                  packet->name_length) < 0 ? errno : 0;
}

/* Send as many as one system call takes. Returns how many, or a negative errno of the first one. */
static inline int le_datagram_send_some(struct le_datagram *datagram)
{
    struct mmsghdr messages[LE_DATAGRAM_PARTS];
    struct iovec parts[LE_DATAGRAM_PARTS];
    unsigned count = 0;
    int sent;
    if (le_datagram_count(datagram) == 1) {
        sent = le_datagram_send_one(datagram, le_datagram_at(datagram, datagram->head));
        return sent ? -sent : 1;
    }
    for (; count < LE_DATAGRAM_PARTS && count < le_datagram_count(datagram); count++) {
        const struct le_packet *packet = le_datagram_at(datagram, datagram->head + count);
        struct msghdr *header = &messages[count].msg_hdr;
        memset(header, 0, sizeof *header);
        parts[count].iov_base = (void *)(uintptr_t)packet->at;
        parts[count].iov_len = packet->size;
        header->msg_iov = &parts[count];
        header->msg_iovlen = 1;
        if (packet->name_length) {
            header->msg_name = (void *)(uintptr_t)packet->name;
            header->msg_namelen = packet->name_length;
        }
    }
    datagram->loop->other_syscalls++;
    sent = sendmmsg(datagram->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

/* It was not sent, and will not be. */
static inline void le_datagram_refuse(struct le_datagram *datagram, const struct le_packet *packet, int error)
{
    LE_ASSERT(!datagram->refused_peer);
    datagram->failed = error;
    datagram->refused_peer = packet->peer;
    datagram->refused_size = packet->size;
    datagram->queued -= packet->size;
    datagram->drop(packet->data);
    datagram->flags |= LE_DATAGRAM_FAILED;
}

/* Wait until the socket is writable. */
static inline void le_datagram_wait(struct le_datagram *datagram, int error)
{
    datagram->flags |= LE_DATAGRAM_BLOCKED;
    if (error == EAGAIN) {
        if (le_op_start(datagram->loop, &datagram->writable))
            datagram->hold(le_op_owner(&datagram->writable));
    } else {
        le_datagram_pause(datagram, LE_DATAGRAM_PAUSE_MAX_NS);
    }
}

/* An internet socket keeps what has become of earlier datagrams, and tells it to whoever asks it for anything next: to a send
 * that has nothing to do with it, for example. What fails is tried once more, and only what fails again is refused. */
static inline int le_datagram_send_queue(struct le_datagram *datagram)
{
    int first = 0, is_unix = le_datagram_is(datagram, LE_DATAGRAM_UNIX);
    uint64_t end = datagram->head + LE_DATAGRAM_TURN;
    while (le_datagram_count(datagram) && datagram->head < end && !le_datagram_is(datagram, LE_DATAGRAM_FAILED)) {
        int sent = le_datagram_send_some(datagram);
        if (sent > 0) {
            le_datagram_consume(datagram, (unsigned)sent);
        } else if (le_is_no_room(-sent)) {
            le_datagram_wait(datagram, -sent);
            break;
        } else if (sent == 0 || sent == -EINTR) {
            continue;
        } else if (!is_unix && !first) {
            first = -sent;
            continue;
        } else {
            le_datagram_refuse(datagram, le_datagram_at(datagram, datagram->head++), -sent);
            first = first == -sent ? 0 : first;
        }
        if (first)
            datagram->flags |= LE_DATAGRAM_FAILED;
    }
    if (first) {
        datagram->earlier = first;
        datagram->flags |= LE_DATAGRAM_FAILED;
    }
    return le_datagram_count(datagram) && !le_datagram_is(datagram, LE_DATAGRAM_BLOCKED | LE_DATAGRAM_FAILED);
}

static inline int le_packet_is_to(const struct le_packet *packet, const struct le_packet *other)
{
    return packet->peer == other->peer ||
           (packet->name_length == other->name_length && !memcmp(packet->name, other->name, packet->name_length));
}

/* Of a Unix socket that is not connected: those for receivers without room stay in the queue, in their order. */
static inline void le_datagram_send_past(struct le_datagram *datagram)
{
    const struct le_packet *blocked[LE_DATAGRAM_BLOCKED_MAX];
    uint64_t kept = datagram->head, position;
    unsigned count = 0, is_over = 0;
    for (position = datagram->head; position != datagram->tail; position++) {
        struct le_packet *packet = le_datagram_at(datagram, position), *place;
        unsigned stays = is_over;
        for (unsigned i = 0; i < count && !stays; i++)
            stays = (unsigned)le_packet_is_to(packet, blocked[i]);
        int error = stays ? EAGAIN : le_datagram_send_one(datagram, packet);
        if (!error) {
            datagram->pause_ns = LE_DATAGRAM_PAUSE_MIN_NS;
            le_datagram_release(datagram, packet);
            continue;
        }
        if (!le_is_no_room(error)) {
            le_datagram_refuse(datagram, packet, error);
            is_over = 1;
            continue;
        }
        place = le_datagram_at(datagram, kept++);
        *place = *packet;
        if (stays)
            continue;
        is_over = error != EAGAIN || count == LE_DATAGRAM_BLOCKED_MAX;
        if (!is_over)
            blocked[count++] = place;
    }
    datagram->tail = kept;
    if (le_datagram_count(datagram) && !le_datagram_is(datagram, LE_DATAGRAM_FAILED)) {
        le_datagram_pause(datagram, datagram->pause_ns);
        datagram->pause_ns *= datagram->pause_ns < LE_DATAGRAM_PAUSE_MAX_NS ? 2 : 1;
    }
}

/* See struct le_flush. */
static inline int le_datagram_on_flush(struct le_loop *loop, struct le_flush *flush)
{
    struct le_datagram *datagram = LE_DATAGRAM_OF_FLUSH(flush);
    int is_new = datagram->operation->head.heap_slot == LE_NOT_IN_HEAP;
    (void)loop;
    if (le_datagram_is(datagram, LE_DATAGRAM_ENDING | LE_DATAGRAM_BLOCKED | LE_DATAGRAM_FAILED))
        return 0;
    if ((datagram->flags & (LE_DATAGRAM_UNIX | LE_DATAGRAM_CONNECTED)) == LE_DATAGRAM_UNIX) {
        le_datagram_send_past(datagram);
    } else if (le_datagram_send_queue(datagram)) {
        le_datagram_flush_later(datagram);
        is_new = 1;
    }
    if (le_datagram_is(datagram, LE_DATAGRAM_FAILED) ||
        (le_datagram_is(datagram, LE_DATAGRAM_ABOVE) && le_datagram_is_drained(datagram)) ||
        (le_datagram_is(datagram, LE_DATAGRAM_CLOSING) && !le_datagram_count(datagram)))
        le_datagram_collect(datagram);
    return le_watcher_is(&datagram->operation->head, LE_WATCHER_PENDING) || le_link_is_in(&flush->link) ||
           (is_new && datagram->operation->head.heap_slot != LE_NOT_IN_HEAP);
}

/* -- The requests ------------------------------------------------------------------------------------------------------ */

/* The datagram socket is ending. If the kernel has nothing of it but `last`, which has just completed, that is the end. */
static inline void le_datagram_settle(struct le_datagram *datagram, const struct le_op *last)
{
    struct le_op *receive = &datagram->operation->op;
    if ((receive != last && le_op_is_out(receive)) || (&datagram->writable != last && le_op_is_out(&datagram->writable)))
        return;
    if (datagram->fd >= 0 && le_datagram_is(datagram, LE_DATAGRAM_OWNED))
        close(datagram->fd);
    datagram->fd = -1;
    le_datagram_collect(datagram);
}

static inline void le_datagram_prep_writable(struct le_op *op, struct io_uring_sqe *sqe)
{
    io_uring_prep_poll_add(sqe, LE_DATAGRAM_OF_WRITABLE(op)->fd, POLLOUT);
}

static inline enum le_op_verdict le_datagram_on_writable(struct le_loop *loop, struct le_op *op, int32_t result, uint32_t flags)
{
    struct le_datagram *datagram = LE_DATAGRAM_OF_WRITABLE(op);
    (void)loop;
    (void)result; /* of an error: sending tells it */
    (void)flags;
    if (le_datagram_is(datagram, LE_DATAGRAM_ENDING)) {
        le_datagram_settle(datagram, op);
        return LE_OP_END;
    }
    datagram->flags &= ~(uint32_t)LE_DATAGRAM_BLOCKED;
    le_datagram_flush_later(datagram);
    return LE_OP_END;
}

/* Fill the entry for receiving. MSG_TRUNC: what was cut tells how long it was. Of the rest see le_many_prep_recv(). */
static inline void le_datagram_prep_recv(struct le_datagram *datagram, uint32_t name_room)
{
    struct le_operation *operation = datagram->operation;
    datagram->layout.msg_namelen = name_room;
    io_uring_prep_recvmsg(&operation->sqe, datagram->fd, &datagram->layout, MSG_TRUNC);
    operation->sqe.ioprio = IORING_RECV_MULTISHOT | IORING_RECVSEND_POLL_FIRST;
    operation->sqe.flags |= IOSQE_BUFFER_SELECT;
    operation->sqe.buf_group = datagram->many.pool->group;
}

static inline enum le_op_verdict le_datagram_on_recv(struct le_datagram *datagram, struct le_op *op, int32_t result,
                                                     uint32_t flags)
{
    struct le_many *many = &datagram->many;
    enum le_op_verdict verdict;
    if (LE_UNLIKELY(le_datagram_is(datagram, LE_DATAGRAM_CLOSING | LE_DATAGRAM_ENDING))) {
        if (flags & IORING_CQE_F_BUFFER) {
            le_pool_take(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
            le_pool_give(many->pool, flags >> IORING_CQE_BUFFER_SHIFT);
        }
        if (!(flags & IORING_CQE_F_MORE) && le_datagram_is(datagram, LE_DATAGRAM_ENDING))
            le_datagram_settle(datagram, op);
        return LE_OP_END;
    }
    if (LE_UNLIKELY(result == -EAGAIN || result == -ENOMEM)) {
        /* Readable without anything to read, or the kernel is short of memory: not to be asked again at once. */
        le_datagram_pause(datagram, LE_DATAGRAM_PAUSE_MAX_NS);
        return LE_OP_END;
    }
    verdict = le_many_on_cqe(datagram->loop, op, many, result, flags);
    if (LE_UNLIKELY(verdict != LE_OP_LATER && le_datagram_is(datagram, LE_DATAGRAM_PAUSED))) {
        le_many_leave(datagram->loop, many);
        return LE_OP_END;
    }
    return verdict;
}

/* Drop what was received and not handed over. */
static inline void le_datagram_drop_input(struct le_datagram *datagram)
{
    le_many_leave(datagram->loop, &datagram->many);
    le_many_drop(datagram->loop, &datagram->many);
}

/* What is in a buffer: the head, room for a name, the data. */
static inline const struct io_uring_recvmsg_out *le_datagram_head(const struct le_datagram *datagram, uint32_t number)
{
    return (const struct io_uring_recvmsg_out *)le_pool_buffer(datagram->many.pool, number);
}

static inline const char *le_datagram_name(const struct io_uring_recvmsg_out *head)
{
    return (const char *)(head + 1);
}

static inline const char *le_datagram_data(const struct le_datagram *datagram, const struct io_uring_recvmsg_out *head)
{
    return (const char *)(head + 1) + datagram->layout.msg_namelen;
}

#endif
