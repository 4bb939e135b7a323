/* le_signalfd.h: signals that a loop reads through a signalfd(2), in place of having a handler catch them.
 *
 * A signal is read only while it is blocked, and what is blocked is a matter of each thread. So the loop blocks it in its own
 * thread, when the read is first handed to the kernel: that is the thread which runs the loop, whichever has made it. The
 * handler stays installed all the same. Where another thread does not block the signal the kernel may give it to that one, and
 * when the loop unblocks it what is still pending is delivered: to the handler, which loses nothing, and not to the disposition
 * of old, which may be to end the process.
 *
 * Several loops of one thread may want the same signal: it is unblocked by the last of them, unless it was blocked before. */
#ifndef LE_SIGNALFD_H
#define LE_SIGNALFD_H

#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "le_reader.h"
#include "le_signal.h"

#define LE_SIGNALFD_RECORDS 32

struct le_signalfd {
    struct le_reader reader;
    struct le_signal_hub *hub;
    const struct le_link *members;
    pthread_t thread;  /* that has blocked them */
    uint64_t watched;  /* bit signum - 1 */
    uint64_t blocked;  /* those that have been blocked for this reader */
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
