/* le_compat.h: numbers of the kernel's io_uring interface that older liburing headers lack.
 *
 * They are part of the kernel's stable ABI. Whether the running kernel knows them is always probed, never guessed. */
#ifndef LE_COMPAT_H
#define LE_COMPAT_H

#include <liburing.h>

#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7) /* Linux 6.15: a wait is not counted as iowait */
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

/* Operations that Debian's liburing 2.3 does not name. In newer headers they are members of an enum, which the preprocessor
 * cannot ask for. */
enum le_opcode {
    LE_URING_READ_MULTISHOT = 49,   /* Linux 6.7 */
    LE_URING_WAITID = 50,           /* 6.7 */
    LE_URING_FUTEX_WAIT = 51,       /* 6.7 */
    LE_URING_FUTEX_WAKE = 52,       /* 6.7 */
    LE_URING_FUTEX_WAITV = 53,      /* 6.7 */
    LE_URING_FIXED_FD_INSTALL = 54, /* 6.8 */
    LE_URING_FTRUNCATE = 55,        /* 6.9 */
    LE_URING_BIND = 56,             /* 6.11 */
    LE_URING_LISTEN = 57,           /* 6.11 */
    LE_URING_EPOLL_WAIT = 59,       /* 6.15 */
    LE_URING_READV_FIXED = 60,      /* 6.15 */
    LE_URING_WRITEV_FIXED = 61,     /* 6.15 */
    LE_URING_PIPE = 62,             /* 6.16 */
    LE_URING_OPERATIONS = 65        /* how many have a number in Linux 6.19 */
};
#ifndef IORING_MSG_RING_FLAGS_PASS
#define IORING_MSG_RING_FLAGS_PASS (1U << 1) /* Linux 6.3: the sender says what flags the completion has */
#endif
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x00000100 /* Linux 6.18: a write to a broken pipe sends no signal */
#endif
#ifndef IORING_TIMEOUT_MULTISHOT
#define IORING_TIMEOUT_MULTISHOT (1U << 6) /* Linux 6.4 */
#endif

static inline void le_prep_ftruncate(struct io_uring_sqe *sqe, int fd, int64_t length)
{
    io_uring_prep_rw(LE_URING_FTRUNCATE, sqe, fd, NULL, 0, (uint64_t)length);
}

/* No siginfo is asked for: it would have to outlive whoever waits. */
static inline void le_prep_waitid(struct io_uring_sqe *sqe, int idtype, int id, int options)
{
    io_uring_prep_rw(LE_URING_WAITID, sqe, id, NULL, (unsigned)idtype, 0);
    sqe->file_index = (uint32_t)options;
}

/* Distributions ship liburing builds that declare io_uring_enable_rings() without exporting it, hence the plain opcode. */
#define LE_REGISTER_ENABLE_RINGS 12

/* The kernel's own numbers for calls that a signal has ended begin here. They are not for programs, but an open of a FIFO that
 * is cancelled completes with one. */
#define LE_ERESTARTSYS 512

#define LE_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define LE_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* CPython is built with -DNDEBUG, which would switch off assert(): the verify build has a macro of its own. */
#ifndef LE_VERIFY
#define LE_VERIFY 0
#endif
#include <stdio.h>
#include <stdlib.h>
#define LE_ASSERT(condition)                                                                             \
    do {                                                                                                 \
        if (LE_VERIFY && !(condition)) {                                                                 \
            fprintf(stderr, "linux_event: invariant broken: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
            abort();                                                                                     \
        }                                                                                                \
    } while (0)

#endif
