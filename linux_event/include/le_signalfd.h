/* le_signalfd.h: signals that a loop reads through a signalfd(2), in place of having a handler catch them.
 *
 * A signal is read only while it is blocked, and what is blocked is a matter of each thread. So the loop blocks it in its own
 * thread, when the read is first handed to the kernel: that is the thread which runs the loop, whichever has made it. The
 * handler stays installed all the same. Where another thread does not block the signal the kernel may give it to that one, and
 * when the loop unblocks it what is still pending is delivered: to the handler, which loses nothing, and not to the disposition
 * of old, which may be to end the process.
 *
 * Several loops of one thread may want the same signal: it is unblocked by the last of them, unless it was blocked before. A loop
 * that is dropped in another thread cannot do it. Then the thread does so itself, when it next blocks or unblocks something here;
 * the main thread does so at once, by a pending call of the interpreter. */
#ifndef LE_SIGNALFD_H
#define LE_SIGNALFD_H

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>

#include "le_reader.h"
#include "le_signal.h"

#define LE_SIGNALFD_RECORDS 32

/* What the loops of one thread have blocked there. Only the thread itself can change its mask, but a loop may be dropped in
 * another one, by the collector of garbage. So this outlives the thread for as long as a reader refers to it. All but the
 * number of references is guarded by the GIL. */
struct le_signal_thread {
    uint64_t before; /* bit signum - 1: was blocked before */
    uint64_t late;   /* nobody wants it blocked any more, and the thread has yet to unblock it */
    uint32_t references;
    uint32_t is_main;
    uint32_t blockers[LE_SIGNAL_MAX + 1]; /* how many readers want it blocked */
};
_Static_assert(offsetof(struct le_signal_thread, blockers) == 2 * 8 + 2 * 4, "le_signal_thread has no padding in its middle");

struct le_signalfd {
    struct le_reader reader;
    struct le_signal_hub *hub;
    const struct le_link *members;
    struct le_signal_thread *thread; /* that has blocked them, or NULL */
    uint64_t watched;                /* bit signum - 1 */
    uint64_t blocked;                /* those that have been blocked for this reader */
    struct signalfd_siginfo records[LE_SIGNALFD_RECORDS];
};
_Static_assert(offsetof(struct le_signalfd, reader) == 0, "le_signalfd begins with its reader");

static inline sigset_t le_signal_set(uint64_t bits)
{
    sigset_t set;
    sigemptyset(&set);
    for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++)
        if (bits & (UINT64_C(1) << (signum - 1)))
            sigaddset(&set, signum);
    return set;
}

/* Returns those of `bits` that were blocked until now. */
static inline uint64_t le_signal_mask(uint64_t bits, int how)
{
    sigset_t set = le_signal_set(bits), former;
    uint64_t blocked = 0;
    if (!bits || pthread_sigmask(how, &set, &former))
        return 0;
    for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++)
        if (sigismember(&former, signum) == 1)
            blocked |= UINT64_C(1) << (signum - 1);
    return blocked & bits;
}

/* Also the destructor of the thread's own reference, which needs no GIL. */
static inline void le_signal_thread_release(void *thread)
{
    if (!__atomic_sub_fetch(&((struct le_signal_thread *)thread)->references, 1, __ATOMIC_ACQ_REL))
        free(thread);
}

/* What the thread has blocked for its loops, and nobody else has. */
static inline uint64_t le_signal_thread_blocked(const struct le_signal_thread *thread)
{
    uint64_t bits = 0;
    for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++)
        bits |= thread->blockers[signum] ? UINT64_C(1) << (signum - 1) : 0;
    return bits & ~thread->before;
}

/* In the thread itself: block what the reader watches. */
static inline void le_signalfd_block(struct le_signalfd *self, struct le_signal_thread *here)
{
    uint64_t missing = self->watched & ~self->blocked;
    if (!here || !missing)
        return; /* without memory the handler does it all */
    if (!self->thread) {
        self->thread = here;
        __atomic_add_fetch(&here->references, 1, __ATOMIC_RELAXED);
    }
    uint64_t before = le_signal_mask(missing, SIG_BLOCK);
    self->blocked |= missing;
    for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++) {
        uint64_t bit = UINT64_C(1) << (signum - 1);
        if (missing & bit && !here->blockers[signum]++)
            here->before = (here->before & ~bit) | (before & bit);
    }
}

/* In any thread: the reader wants these blocked no more. Returns what its thread is to unblock now. */
static inline uint64_t le_signalfd_let_go(struct le_signalfd *self, uint64_t which)
{
    struct le_signal_thread *thread = self->thread;
    uint64_t ours = self->blocked & which, over = 0;
    self->blocked &= ~which;
    for (int signum = 1; signum <= LE_SIGNAL_MAX; signum++) {
        uint64_t bit = UINT64_C(1) << (signum - 1);
        if (ours & bit && thread->blockers[signum] && !--thread->blockers[signum])
            over |= bit & ~thread->before;
    }
    return over;
}

/* Unblock what the loops of this thread have blocked. Returns what was blocked. */
static inline uint64_t le_signals_lift(const struct le_signal_thread *here)
{
    return here ? le_signal_mask(le_signal_thread_blocked(here), SIG_UNBLOCK) : 0;
}

/* Block it again, but for what nobody wants any more: a handler in Python may have stopped a watcher. */
static inline void le_signals_lower(const struct le_signal_thread *here, uint64_t bits)
{
    if (here)
        le_signal_mask(bits & le_signal_thread_blocked(here), SIG_BLOCK);
}

static inline int le_signalfd_open(int fd, uint64_t bits)
{
    sigset_t set = le_signal_set(bits);
    return signalfd(fd, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static inline struct le_signal_record le_signalfd_record(const struct signalfd_siginfo *info)
{
    struct le_signal_record record = {(int32_t)info->ssi_signo, info->ssi_code, 0, 0, info->ssi_status, info->ssi_int};
    if (le_signal_has_sender(record.signum, record.code)) {
        record.pid = (int32_t)info->ssi_pid;
        record.uid = info->ssi_uid;
    }
    return record;
}

#endif
