/* native.h: what the programs of this folder share: messages, options, addresses, time.
 *
 * To be included first. Build any of them by
 *     cc -std=gnu11 -O2 -Wall -Wextra -o NAME NAME.c -luring
 * Only those on io_uring need liburing. */
#ifndef NATIVE_H
#define NATIVE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* -- Messages ---------------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static inline void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

#define DIE(...)                \
    do {                        \
        complain(__VA_ARGS__);  \
        exit(1);                \
    } while (0)

/* End with the system's reason where a call has failed. */
#define CHECK(succeeded, what)                     \
    do {                                           \
        if (!(succeeded))                          \
            DIE("%s: %s", what, strerror(errno));  \
    } while (0)

static inline void *allocate(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);
    if (!memory)
        DIE("no memory for %zu bytes", bytes);
    return memory;
}

/* -- Options ----------------------------------------------------------------------------------------------------------- */

struct option_number {
    const char *name; /* with its dashes; NULL ends the table */
    long minimum;
    long maximum;
    long *value;
};

static inline void parse_options(int count, char **words, const struct option_number *options)
{
    for (int i = 0; i < count; i += 2) {
        const struct option_number *option = options;
        char *end;
        while (option->name && strcmp(option->name, words[i]))
            option++;
        if (!option->name)
            DIE("unknown option %s", words[i]);
        if (i + 1 == count)
            DIE("%s needs a number", words[i]);
        errno = 0;
        *option->value = strtol(words[i + 1], &end, 10);
        if (errno || end == words[i + 1] || *end || *option->value < option->minimum || *option->value > option->maximum)
            DIE("%s takes a number from %ld to %ld, not %s", option->name, option->minimum, option->maximum, words[i + 1]);
    }
}

/* -- Addresses --------------------------------------------------------------------------------------------------------- */

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in internet;
        struct sockaddr_un local;
    };
    socklen_t length;
};

/* tcp:PORT, which is on 127.0.0.1, or unix:PATH. */
static inline struct address parse_address(const char *text)
{
    struct address address;
    memset(&address, 0, sizeof address);
    if (!strncmp(text, "tcp:", 4)) {
        char *end;
        unsigned long port = strtoul(text + 4, &end, 10);
        if (end == text + 4 || *end || port > 65535)
            DIE("no such port: %s", text);
        address.internet.sin_family = AF_INET;
        address.internet.sin_port = htons((uint16_t)port);
        address.internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.length = sizeof address.internet;
    } else if (!strncmp(text, "unix:", 5)) {
        size_t length = strlen(text + 5);
        if (!length || length >= sizeof address.local.sun_path)
            DIE("a path is of 1 to %zu bytes: %s", sizeof address.local.sun_path - 1, text);
        address.local.sun_family = AF_UNIX;
        memcpy(address.local.sun_path, text + 5, length);
        address.length = sizeof address.local;
    } else {
        DIE("an address is tcp:PORT or unix:PATH, not %s", text);
    }
    return address;
}

/* A socket that sends small pieces at once, as the event loops' do; what a listening one accepts inherits that. */
static inline int open_socket(const struct address *address, int flags)
{
    int one = 1;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    CHECK(fd >= 0, "socket");
    if (address->any.sa_family == AF_INET)
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "TCP_NODELAY");
    return fd;
}

/* As many fds as this process may have. */
static inline void raise_fd_limit(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

/* -- Time -------------------------------------------------------------------------------------------------------------- */

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
