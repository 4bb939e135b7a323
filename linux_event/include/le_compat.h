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

#define LE_OP_FTRUNCATE 55 /* Linux 6.9; in newer headers a member of an enum, which the preprocessor cannot ask for */

static inline void le_prep_ftruncate(struct io_uring_sqe *sqe, int fd, int64_t length)
{
    io_uring_prep_rw(LE_OP_FTRUNCATE, sqe, fd, NULL, 0, (uint64_t)length);
}

/* Distributions ship liburing builds that declare io_uring_enable_rings() without exporting it, hence the plain opcode. */
#define LE_REGISTER_ENABLE_RINGS 12

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
