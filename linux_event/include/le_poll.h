/* le_poll.h: readiness of one fd: the request of an I/O watcher, and level triggering on top of it.
 *
 * The essay on level triggering. A multishot poll reports when it is armed on a ready fd, and then only what is new: bytes
 * that a callback left unread give no second completion, and the kernel has no level-triggered multishot. And a completion
 * carries the readiness of the moment of the wake-up, which may be gone when it is read: by then somebody may have consumed
 * the bytes, and a callback that is told of them would block in read(2).
 *
 * So for a level-triggered watcher a completion is only a nomination: it puts the watcher into the loop's recheck list, and
 * so does every call of its callback. One poll(2) asks the fds of the whole list, before the loop would sleep and after it
 * has slept. Those ready are collected; the others leave the list, because anything new will be reported by the kernel.
 * Nothing is lost in between: what arrives after poll(2) looked wakes the multishot. Edge-triggered watchers get the
 * completions as they are, except for urgent data, of which the completion says nothing.
 *
 * Most often the busy fds are few and the same. While every request of the loop belongs to a watcher in the list, entering
 * the kernel could bring nothing that poll(2) does not tell: then poll(2) alone is asked first, and if an fd is ready the
 * iteration costs that one system call. */
#ifndef LE_POLL_H
#define LE_POLL_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>

#include "le_loop.h"

/* The bits of linux_event.Events. */
enum le_event {
    LE_EVENT_READ = 1,
    LE_EVENT_PRIORITY = 2,
    LE_EVENT_WRITE = 4,
    LE_EVENT_ERROR = 8,
    LE_EVENT_HANGUP = 16
};

struct le_poll {
    struct le_op op; /* op.fd is the fd */
    struct le_chain chain;
};

/* op.bits */
enum le_poll_bit {
    LE_POLL_WANTED = 0x1f, /* enum le_event, what the user asked for */
    LE_POLL_EDGE = 0x20,
    LE_POLL_ALWAYS_READY = 0x40, /* a regular file or a folder: the kernel has nothing to wait for */
    LE_POLL_INVALID = 0x80,      /* the kernel refused the fd */
    LE_POLL_CHECKED = 0x100      /* known to be open: the start comes right after the creation */
};
_Static_assert(sizeof(struct le_poll) == sizeof(struct le_op) + sizeof(struct le_chain), "le_poll has no hidden padding");

static inline uint32_t le_poll_mask(const struct le_poll *poll)
{
    uint32_t mask = 0;
    if (poll->op.bits & LE_EVENT_READ)
        mask |= POLLIN;
    if (poll->op.bits & LE_EVENT_PRIORITY)
        mask |= POLLPRI;
    if (poll->op.bits & LE_EVENT_WRITE)
        mask |= POLLOUT;
    return mask; /* POLLERR and POLLHUP are always reported */
}

/* The events in a poll mask. After a hang-up or an error reading and writing do not block: whoever waits for one of them
 * has to be told. */
static inline uint16_t le_poll_events(const struct le_poll *poll, uint32_t mask)
{
    uint16_t events = 0;
    if (mask & POLLIN)
        events |= LE_EVENT_READ;
    if (mask & POLLPRI)
        events |= LE_EVENT_PRIORITY;
    if (mask & POLLOUT)
        events |= LE_EVENT_WRITE;
    if (mask & (POLLERR | POLLNVAL))
        events |= LE_EVENT_ERROR;
    if (mask & POLLHUP)
        events |= LE_EVENT_HANGUP;
    if (mask & (POLLERR | POLLHUP))
        events |= poll->op.bits & (LE_EVENT_READ | LE_EVENT_WRITE);
    return events & ((poll->op.bits & LE_POLL_WANTED) | LE_EVENT_ERROR | LE_EVENT_HANGUP);
}

static inline void le_poll_prep(struct le_op *op, struct io_uring_sqe *sqe)
{
    uint32_t mask = le_poll_mask(LE_CONTAINER(op, struct le_poll, op));
    /* The kernel does not wake a ring for POLLPRI alone: any sign of something to read makes us ask. */
    if (mask & POLLPRI)
        mask |= POLLIN | POLLRDBAND;
    io_uring_prep_poll_multishot(sqe, op->fd, mask);
}

static inline void le_recheck_push(struct le_loop *loop, struct le_watcher *watcher)
{
    if (!(watcher->flags & (LE_WATCHER_RECHECK | LE_WATCHER_PENDING))) {
        watcher->flags |= LE_WATCHER_RECHECK;
        le_list_push(&loop->recheck, &watcher->link);
    }
}

/* A completion of the request of the watcher. */
static inline enum le_op_verdict le_poll_complete(struct le_loop *loop, struct le_poll *poll, struct le_watcher *watcher,
                                                  int32_t result)
{
    if (LE_UNLIKELY(result < 0)) {
        poll->op.bits |= LE_POLL_INVALID;
        watcher->events |= LE_EVENT_ERROR;
        le_watcher_collect(loop, watcher, LE_LANE_COMPLETIONS);
        return LE_OP_END;
    }
    if (!(poll->op.bits & LE_POLL_EDGE) || (poll->op.bits & LE_EVENT_PRIORITY)) {
        le_recheck_push(loop, watcher);
        return LE_OP_AGAIN;
    }
    uint16_t events = le_poll_events(poll, (uint32_t)result);
    if (LE_LIKELY(events)) {
        watcher->events |= events;
        le_watcher_collect(loop, watcher, LE_LANE_COMPLETIONS);
    }
    return LE_OP_AGAIN;
}

#define LE_RECHECK_PORTION 256 /* fds asked with one poll(2): what fits on the stack */
#define LE_RECHECK_FEW 16

static inline struct le_poll *le_poll_of(struct le_link *link, ptrdiff_t poll_offset)
{
    return (struct le_poll *)((char *)LE_CONTAINER(link, struct le_watcher, link) + poll_offset);
}

/* Whether the watchers in the list are few, and every request of a watcher is one of theirs, in flight. */
static inline int le_recheck_is_everything(const struct le_loop *loop, ptrdiff_t poll_offset)
{
    uint64_t requests = 0;
    unsigned few = LE_RECHECK_FEW;
    for (struct le_link *link = loop->recheck.next; link != &loop->recheck; link = link->next) {
        if (!few--)
            return 0;
        requests += le_poll_of(link, poll_offset)->op.state == LE_OP_IN_FLIGHT;
    }
    return requests == loop->requests;
}

/* Ask the fds of up to LE_RECHECK_PORTION watchers, the first of the list. Those ready are collected; the others leave the
 * list, or go to its end if they are to stay. */
static inline void le_recheck_portion(struct le_loop *loop, ptrdiff_t poll_offset, int they_stay)
{
    struct pollfd fds[LE_RECHECK_PORTION];
    nfds_t count = 0;
    for (struct le_link *link = loop->recheck.next; link != &loop->recheck && count < LE_RECHECK_PORTION; link = link->next) {
        struct le_poll *poll = le_poll_of(link, poll_offset);
        fds[count].fd = poll->op.fd;
        fds[count].events = (short)le_poll_mask(poll);
        fds[count++].revents = 0;
    }
    int ready;
    do {
        ready = poll(fds, count, 0);
        loop->other_syscalls++;
    } while (ready < 0 && errno == EINTR);
    /* More at once than RLIMIT_NOFILE allows: one by one. */
    if (ready < 0 && errno == EINVAL)
        for (nfds_t i = ready = 0; i < count; i++)
            (void)poll(&fds[i], 1, 0);
    for (nfds_t i = 0; i < count; i++) {
        struct le_watcher *watcher = LE_CONTAINER(le_list_pop(&loop->recheck), struct le_watcher, link);
        struct le_poll *poll = (struct le_poll *)((char *)watcher + poll_offset);
        /* Where poll(2) itself fails, for lack of memory say, everybody is asked to look: too often is better than never. */
        uint32_t mask = ready < 0 ? le_poll_mask(poll) : (uint32_t)fds[i].revents;
        uint16_t events = le_poll_events(poll, mask);
        watcher->flags &= (uint8_t)~LE_WATCHER_RECHECK;
        if (mask & POLLNVAL)
            poll->op.bits |= LE_POLL_INVALID;
        if (events) {
            watcher->events |= events;
            le_watcher_collect(loop, watcher, LE_LANE_COMPLETIONS);
        } else if (they_stay) {
            le_recheck_push(loop, watcher);
        }
    }
}

/* Ask all watchers of the recheck list; if only_everything, just where nothing else could be ready, and with the unready
 * staying in the list. poll_offset leads from a watcher's le_watcher to its le_poll. */
static inline void le_recheck(struct le_loop *loop, ptrdiff_t poll_offset, int only_everything)
{
    if (only_everything) {
        if (le_recheck_is_everything(loop, poll_offset))
            le_recheck_portion(loop, poll_offset, 1);
        return;
    }
    while (!le_list_is_empty(&loop->recheck))
        le_recheck_portion(loop, poll_offset, 0);
}

#endif
