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
