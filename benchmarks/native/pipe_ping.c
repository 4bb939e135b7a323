/* pipe_ping.c: the pipe ping without Python, for what the kernel alone takes of it.
 *
 * usage: pipe_ping METHOD EVENTS CPU
 * Prints the processor time of an event in nanoseconds. Each event reads one byte from a pipe and writes the next one;
 * METHOD is how readiness is learnt before: "none" (not at all), "poll", "epoll", or "io_uring" (a multishot poll request
 * on a ring as linux_event makes it, whose completions appear when the kernel is entered). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "setup_flags.h"

static int pipe_fds[2];
static struct io_uring ring;
static int epoll_fd;

static void check(int condition, const char *what)
{
    if (!condition) {
        perror(what);
        exit(1);
    }
}

static void none_begin(void) {}
static void none_wait(void) {}

static void poll_wait(void)
{
    struct pollfd entry = {.fd = pipe_fds[0], .events = POLLIN};
    /* Ready already: with no time to wait the kernel need not queue up for an event. */
    check(poll(&entry, 1, 0) == 1, "poll");
}

static void epoll_begin(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    epoll_fd = epoll_create1(0);
    check(epoll_fd >= 0, "epoll_create1");
    check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &event) == 0, "epoll_ctl");
}

static void epoll_wait_one(void)
{
    struct epoll_event event;
    check(epoll_wait(epoll_fd, &event, 1, -1) == 1, "epoll_wait");
}

static void io_uring_begin(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    struct io_uring_sqe *entry;
    check(io_uring_queue_init_params(8, &ring, &params) == 0, "io_uring_queue_init_params");
    entry = io_uring_get_sqe(&ring);
    io_uring_prep_poll_multishot(entry, pipe_fds[0], POLLIN);
    check(io_uring_submit(&ring) == 1, "io_uring_submit");
}

static void io_uring_wait(void)
{
    struct io_uring_cqe *entry;
    check(io_uring_wait_cqe(&ring, &entry) == 0, "io_uring_wait_cqe");
    io_uring_cqe_seen(&ring, entry);
}

static const struct method {
    const char *name;
    void (*begin)(void);
    void (*wait)(void);
} methods[] = {
    {"none", none_begin, none_wait},
    {"poll", none_begin, poll_wait},
    {"epoll", epoll_begin, epoll_wait_one},
    {"io_uring", io_uring_begin, io_uring_wait},
};

static double cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

int main(int argc, char **argv)
{
    check(argc == 4, "usage: pipe_ping METHOD EVENTS CPU");
    const struct method *method = NULL;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (!strcmp(argv[1], methods[i].name))
            method = &methods[i];
    check(method != NULL, "unknown method");
    long events = atol(argv[2]);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(atoi(argv[3]), &cpus);
    check(sched_setaffinity(0, sizeof cpus, &cpus) == 0, "sched_setaffinity");
    check(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
    method->begin();
    char byte = '.';
    check(write(pipe_fds[1], &byte, 1) == 1, "write");
    double begin = cpu_ns();
    for (long i = 0; i < events; i++) {
        method->wait();
        check(read(pipe_fds[0], &byte, 1) == 1, "read");
        check(write(pipe_fds[1], &byte, 1) == 1, "write");
    }
    printf("%.1f\n", (cpu_ns() - begin) / events);
    return 0;
}
