/* ring.h: an io_uring and a ring of buffers to receive into, for a program with one of each. */
#ifndef RING_H
#define RING_H

#include "native.h"
#include "setup_flags.h"

#include <sys/mman.h>

static struct io_uring ring;
static long entries = 1024;

static struct io_uring_buf_ring *buffer_ring;
static long buffer_count = 64;
static long buffer_bytes = 16 << 10;
static char *buffers;
static int buffers_back; /* how many have been put back but not yet shown to the kernel */

/* Submit all that is prepared, and wait for that many completions. */
static void enter(unsigned wait)
{
    do {
        int result = io_uring_submit_and_wait(&ring, wait);
        if (result < 0 && result != -EINTR && result != -EAGAIN)
            DIE("io_uring: %s", strerror(-result));
        wait = 0;
    } while (io_uring_sq_ready(&ring));
}

static struct io_uring_sqe *get_entry(void)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    if (!entry) {
        enter(0);
        entry = io_uring_get_sqe(&ring);
    }
    return entry;
}

static char *buffer_at(unsigned number)
{
    return buffers + (size_t)number * (size_t)buffer_bytes;
}

static void give_buffer_back(unsigned number)
{
    io_uring_buf_ring_add(buffer_ring, buffer_at(number), (unsigned)buffer_bytes, (unsigned short)number,
                          io_uring_buf_ring_mask((unsigned)buffer_count), buffers_back++);
}

static void show_buffers(void)
{
    io_uring_buf_ring_advance(buffer_ring, buffers_back);
    buffers_back = 0;
}

static void open_ring(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                     .cq_entries = 4 * (unsigned)entries};
    struct io_uring_buf_reg registration = {.ring_entries = (unsigned)buffer_count};
    size_t pool_bytes = (size_t)buffer_count * (size_t)buffer_bytes;
    int result;
    if (buffer_count & (buffer_count - 1))
        DIE("--buffers takes a power of two");
    result = io_uring_queue_init_params((unsigned)entries, &ring, &params);
    if (result < 0)
        DIE("io_uring: %s", strerror(-result));
    io_uring_register_ring_fd(&ring);
    buffer_ring = (struct io_uring_buf_ring *)mmap(NULL, (size_t)buffer_count * sizeof(struct io_uring_buf),
                                                   PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    buffers = (char *)mmap(NULL, pool_bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    CHECK(buffer_ring != MAP_FAILED && buffers != MAP_FAILED, "mmap");
    registration.ring_addr = (uintptr_t)buffer_ring;
    result = io_uring_register_buf_ring(&ring, &registration, 0);
    if (result < 0)
        DIE("buffer ring: %s", strerror(-result));
    io_uring_buf_ring_init(buffer_ring);
    for (long i = 0; i < buffer_count; i++)
        give_buffer_back((unsigned)i);
    show_buffers();
}

#endif
