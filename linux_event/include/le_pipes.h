/* le_pipes.h: pipes that spliced data pass through, kept for the next transfer.
 *
 * A pipe is handed out empty. One that still holds data is closed: its next user would send them. */
#ifndef LE_PIPES_H
#define LE_PIPES_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#define LE_PIPES_MAX 8          /* kept */
#define LE_PIPE_SIZE (1u << 20) /* bytes; what an unprivileged user may have, see pipe(7) */

struct le_pipe {
    int read_fd; /* -1: none */
    int write_fd;
    uint32_t size; /* bytes that it holds at most */
};

struct le_pipes {
    struct le_pipe kept[LE_PIPES_MAX];
    uint32_t count;
};
_Static_assert(sizeof(struct le_pipe) == 12, "struct le_pipe is part of the ABI of operations");
_Static_assert(sizeof(struct le_pipes) == 100, "struct le_pipes is part of le_loop");

/* Returns 0 or -errno. */
static inline int le_pipes_take(struct le_pipes *pipes, struct le_pipe *pipe)
{
    int fds[2], size;
    if (pipes->count) {
        *pipe = pipes->kept[--pipes->count];
        return 0;
    }
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pipe->read_fd = fds[0];
    pipe->write_fd = fds[1];
    /* Where the user has too many pages in pipes, it stays as small as it is. */
    (void)fcntl(fds[1], F_SETPIPE_SZ, LE_PIPE_SIZE);
    size = fcntl(fds[1], F_GETPIPE_SZ);
    pipe->size = size > 0 ? (uint32_t)size : 4096;
    return 0;
}

static inline void le_pipe_close(struct le_pipe *pipe)
{
    if (pipe->read_fd >= 0) {
        close(pipe->read_fd);
        close(pipe->write_fd);
    }
    pipe->read_fd = pipe->write_fd = -1;
}

static inline void le_pipes_give(struct le_pipes *pipes, struct le_pipe *pipe, int is_empty)
{
    if (pipe->read_fd >= 0 && is_empty && pipes->count < LE_PIPES_MAX) {
        pipes->kept[pipes->count++] = *pipe;
        pipe->read_fd = pipe->write_fd = -1;
    }
    le_pipe_close(pipe);
}

static inline void le_pipes_close(struct le_pipes *pipes)
{
    while (pipes->count)
        le_pipe_close(&pipes->kept[--pipes->count]);
}

#endif
