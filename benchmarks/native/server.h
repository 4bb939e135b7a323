/* server.h: what the servers of this folder share: how they are called, how they listen and end, and what HTTP they speak.
 *
 * usage: PROGRAM MODE ADDRESS [--body N] [options of the program]
 * ADDRESS is tcp:PORT on 127.0.0.1, 0 for any port, or unix:PATH. MODE is
 *   echo       send back what comes
 *   http       answer each GET request with a fixed response, whose body has N bytes (128 unless told); connections are
 *              kept alive, and requests may come pipelined
 *   close      accept connections, and close them at once
 *   broadcast  send all that comes from the first connection to all of them, itself included; when it has gone, the next
 *              one accepted takes its place. What comes from others is dropped.
 * When it listens it prints one line, "port N" or "path P". It ends with status 0 on SIGTERM, and with a message and
 * status 1 on errors of its own; errors of a connection end that connection only. A connection whose other end has
 * finished sending gets all that is its due before it is closed. Who does not read what is sent to him is not read from
 * either (nor, in broadcast, the first one). */
#ifndef SERVER_H
#define SERVER_H

#include "native.h"

#include <malloc.h>
#include <signal.h>
#include <strings.h>

enum mode { ECHO, HTTP, CLOSE, BROADCAST };

static enum mode mode;
static long body_bytes = 128;

/* How many bytes may wait for a connection before nothing more is read on its account. */
#define HIGH_WATER ((size_t)256 << 10)

static inline enum mode parse_mode(const char *name)
{
    static const char *const names[] = {"echo", "http", "close", "broadcast"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return (enum mode)i;
    DIE("no such mode: %s", name);
}

/* -- Listening --------------------------------------------------------------------------------------------------------- */

static struct address server_address;

static inline void end_on_signal(int number)
{
    (void)number;
    if (server_address.any.sa_family == AF_UNIX)
        unlink(server_address.local.sun_path);
    _exit(0);
}

static inline int start_listening(const char *text, int flags)
{
    int one = 1;
    int fd;
    raise_fd_limit();
    /* Queues that have grown once keep their memory. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    server_address = parse_address(text);
    fd = open_socket(&server_address, flags);
    if (server_address.any.sa_family == AF_INET)
        CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0, "SO_REUSEADDR");
    CHECK(bind(fd, &server_address.any, server_address.length) == 0, text);
    CHECK(signal(SIGTERM, end_on_signal) != SIG_ERR && signal(SIGPIPE, SIG_IGN) != SIG_ERR, "signal");
    CHECK(listen(fd, 4096) == 0, text);
    if (server_address.any.sa_family == AF_INET) {
        CHECK(getsockname(fd, &server_address.any, &server_address.length) == 0, "getsockname");
        printf("port %d\n", ntohs(server_address.internet.sin_port));
    } else {
        printf("path %s\n", server_address.local.sun_path);
    }
    CHECK(fflush(stdout) == 0, "stdout");
    return fd;
}

/* Whether accepting has failed because of the connection that would have been accepted. */
static inline int is_error_of_peer(int error)
{
    return error == ECONNABORTED || error == EPERM || error == EPROTO || error == EINTR;
}

/* -- Queues of bytes --------------------------------------------------------------------------------------------------- */

struct bytes {
    char *data;
    size_t begin; /* what is in it goes from here to `end` */
    size_t end;
    size_t room;
};

static inline size_t bytes_left(const struct bytes *bytes)
{
    return bytes->end - bytes->begin;
}

static inline void bytes_append(struct bytes *bytes, const void *data, size_t count)
{
    if (bytes->begin == bytes->end)
        bytes->begin = bytes->end = 0;
    if (bytes->end + count > bytes->room) {
        if (bytes->begin) {
            memmove(bytes->data, bytes->data + bytes->begin, bytes_left(bytes));
            bytes->end -= bytes->begin;
            bytes->begin = 0;
        }
        if (bytes->end + count > bytes->room) {
            size_t room = bytes->room ? bytes->room : 256;
            while (room < bytes->end + count)
                room *= 2;
            bytes->data = (char *)allocate(bytes->data, room);
            bytes->room = room;
        }
    }
    memcpy(bytes->data + bytes->end, data, count);
    bytes->end += count;
}

static inline void bytes_drop(struct bytes *bytes, size_t count)
{
    bytes->begin += count;
    /* A connection that has nothing to do keeps no big buffer. */
    if (bytes->begin == bytes->end && bytes->room > 16384) {
        free(bytes->data);
        memset(bytes, 0, sizeof *bytes);
    }
}

static inline void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
}

/* -- HTTP -------------------------------------------------------------------------------------------------------------- */

/* A request's head longer than this is refused. */
#define HTTP_HEAD_MAX 65536

static size_t http_response_bytes;
static char *http_run; /* so many whole responses one after the other that a batch of them is one piece of memory */
static size_t http_run_bytes;

static inline void http_prepare(void)
{
    char head[256];
    size_t head_bytes = (size_t)snprintf(head, sizeof head,
                                         "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %ld\r\n\r\n",
                                         body_bytes);
    size_t copies;
    http_response_bytes = head_bytes + (size_t)body_bytes;
    copies = http_response_bytes < 65536 ? 65536 / http_response_bytes : 1;
    http_run_bytes = copies * http_response_bytes;
    http_run = (char *)allocate(NULL, http_run_bytes);
    for (size_t i = 0; i < copies; i++) {
        memcpy(http_run + i * http_response_bytes, head, head_bytes);
        memset(http_run + i * http_response_bytes + head_bytes, 'x', (size_t)body_bytes);
    }
}

/* What a connection has yet to be sent: `owed` bytes of responses, of which the first starts `phase` bytes into one. */
struct http {
    size_t owed;
    size_t phase;
    struct bytes head; /* the beginning of a request whose end has not come */
};

static inline const char *http_data(const struct http *http)
{
    return http_run + http->phase;
}

static inline size_t http_piece(const struct http *http)
{
    size_t piece = http_run_bytes - http->phase;
    return piece < http->owed ? piece : http->owed;
}

static inline void http_sent(struct http *http, size_t count)
{
    http->owed -= count;
    http->phase = (http->phase + count) % http_response_bytes;
}

/* Count the complete requests in `data`. Returns how many bytes they take, and -1 where the connection is to be closed when
 * these are answered: it was asked for, or something else than a GET request has come. */
static inline ssize_t http_scan(const char *data, size_t count, size_t *requests)
{
    const char *at = data, *end = data + count, *request = data;
    int closing = 0;
    while (at < end) {
        const char *line_end = (const char *)memchr(at, '\n', (size_t)(end - at));
        const char *line = at;
        size_t length;
        if (!line_end)
            break;
        at = line_end + 1;
        length = (size_t)(line_end - line);
        if (length && line[length - 1] == '\r')
            length--;
        if (line == request) {
            if (length < 14 || memcmp(line, "GET ", 4))
                return -1;
            closing = memcmp(line + length - 9, " HTTP/1.1", 9) != 0;
        } else if (length == 0) {
            ++*requests;
            request = at;
            if (closing)
                return -1;
        } else if ((line[0] | 32) == 'c' && length > 11 && !strncasecmp(line, "connection:", 11)) {
            const char *value = line + 11;
            while (*value == ' ')
                value++;
            closing |= !strncasecmp(value, "close\r\n", 7) || !strncasecmp(value, "close\n", 6);
        }
    }
    return request - data;
}

/* Take what has come. Returns 0 where nothing more is to be read. */
static inline int http_take(struct http *http, const char *data, size_t count)
{
    size_t requests = 0;
    ssize_t used;
    if (!bytes_left(&http->head)) {
        used = http_scan(data, count, &requests);
        if (used >= 0 && (size_t)used < count)
            bytes_append(&http->head, data + used, count - (size_t)used);
    } else {
        bytes_append(&http->head, data, count);
        used = http_scan(http->head.data + http->head.begin, bytes_left(&http->head), &requests);
        if (used > 0)
            bytes_drop(&http->head, (size_t)used);
    }
    http->owed += requests * http_response_bytes;
    return used >= 0 && bytes_left(&http->head) <= HTTP_HEAD_MAX;
}

#endif
