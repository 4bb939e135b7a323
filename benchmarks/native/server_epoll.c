/* server_epoll.c: the server that the event loops are compared with, on epoll and plain non-blocking calls.
 *
 * usage: server_epoll MODE ADDRESS [--body N] [--buffer-size BYTES]
 * MODE, ADDRESS and --body are told in server.h. By hand:
 *     cc -std=gnu11 -O2 -o server_epoll server_epoll.c && ./server_epoll echo tcp:7777
 *
 * Connections are watched edge-triggered, which spares the kernel a second look at each. All receive into one buffer
 * (of --buffer-size bytes), which stays in the cache, and what is to be sent is tried at once. What the socket does not take
 * is kept, and until it has gone the connection is watched for room alone and not read from. */
#include "server.h"

#include <sys/epoll.h>

#define EVENTS 512
/* How many full buffers one connection may hand over before it is the others' turn. */
#define FULL_BUFFERS 8

struct connection {
    int fd;
    int watched; /* the events it is watched for */
    int closing; /* to be closed when all is sent */
    size_t index; /* in `connections` */
    struct bytes queue; /* what could not be sent at once */
    struct http http;
};

#include "audience.h"

static int epoll_fd;
static int listening_fd;
static long buffer_bytes = 256 << 10;
static char *buffer;

static void watch(struct connection *connection, int events)
{
    struct epoll_event event = {.events = (uint32_t)events | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    int operation = connection->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    CHECK(epoll_ctl(epoll_fd, operation, connection->fd, &event) == 0, "epoll_ctl");
    connection->watched = events;
}

static void begin(int fd)
{
    struct connection *connection = (struct connection *)allocate(NULL, sizeof *connection);
    memset(connection, 0, sizeof *connection);
    connection->fd = fd;
    if (mode == BROADCAST)
        audience_add(connection);
    watch(connection, EPOLLIN);
}

static void leave_congestion(struct connection *connection)
{
    /* To watch it anew tells also of what has come meanwhile. */
    if (mode == BROADCAST && bytes_left(&connection->queue) > HIGH_WATER && --congestion == 0 && first)
        watch(first, first->watched | EPOLLIN);
}

static void end(struct connection *connection)
{
    close(connection->fd);
    if (mode == BROADCAST) {
        audience_remove(connection);
        leave_congestion(connection);
    }
    bytes_free(&connection->queue);
    bytes_free(&connection->http.head);
    free(connection);
}

/* Returns how many bytes the socket has taken, -1 where the connection is broken. */
static ssize_t try_send(struct connection *connection, const char *data, size_t count)
{
    ssize_t sent;
    do
        sent = send(connection->fd, data, count, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 || errno != EAGAIN ? sent : 0;
}

/* Send what waits. Returns -1 where the connection is broken, 0 where something is left, 1 where all is sent. */
static int flush(struct connection *connection)
{
    struct http *http = &connection->http;
    ssize_t sent;
    while (http->owed) {
        size_t piece = http_piece(http);
        sent = try_send(connection, http_data(http), piece);
        if (sent < 0)
            return -1;
        http_sent(http, (size_t)sent);
        if ((size_t)sent < piece)
            return 0;
    }
    while (bytes_left(&connection->queue)) {
        size_t left = bytes_left(&connection->queue);
        sent = try_send(connection, connection->queue.data + connection->queue.begin, left);
        if (sent < 0)
            return -1;
        if (left - (size_t)sent <= HIGH_WATER)
            leave_congestion(connection);
        bytes_drop(&connection->queue, (size_t)sent);
        if ((size_t)sent < left)
            return 0;
    }
    return 1;
}

/* Send at once, keep the rest. Returns as flush() does. */
static int send_or_keep(struct connection *connection, const char *data, size_t count)
{
    ssize_t sent = try_send(connection, data, count);
    if (sent < 0)
        return -1;
    if ((size_t)sent == count)
        return 1;
    bytes_append(&connection->queue, data + sent, count - (size_t)sent);
    return 0;
}

static void broadcast(const char *data, size_t count)
{
    for (size_t i = 0; i < connection_count; i++) {
        struct connection *to = connections[i];
        size_t before = bytes_left(&to->queue);
        if (before)
            bytes_append(&to->queue, data, count);
        else if (send_or_keep(to, data, count) < 0)
            shutdown(to->fd, SHUT_RDWR); /* its own event will end it */
        if (before <= HIGH_WATER && bytes_left(&to->queue) > HIGH_WATER)
            congestion++;
        if (!before && bytes_left(&to->queue))
            watch(to, to->watched | EPOLLOUT);
    }
}

/* Returns as flush() does. */
static int take(struct connection *connection, const char *data, size_t count)
{
    switch (mode) {
    case ECHO:
        return send_or_keep(connection, data, count);
    case HTTP:
        connection->closing = !http_take(&connection->http, data, count);
        return flush(connection);
    default:
        if (connection == first)
            broadcast(data, count);
        return 1;
    }
}

static void receive(struct connection *connection, uint32_t events)
{
    for (int i = 0; i < FULL_BUFFERS; i++) {
        ssize_t count;
        int result;
        if (connection == first && congestion)
            return;
        count = recv(connection->fd, buffer, (size_t)buffer_bytes, 0);
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            end(connection);
            return;
        }
        result = take(connection, buffer, (size_t)count);
        if (result < 0 || (result > 0 && connection->closing)) {
            end(connection);
            return;
        }
        if (result == 0) {
            watch(connection, EPOLLOUT);
            return;
        }
        /* Less than there was room for: there was no more. The end may have been told together with the last bytes. */
        if (count < buffer_bytes && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            return;
    }
    watch(connection, connection->watched);
}

static void handle(struct connection *connection, uint32_t events)
{
    if (connection->watched & EPOLLOUT && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int result = flush(connection);
        if (result < 0 || (result > 0 && connection->closing)) {
            end(connection);
            return;
        }
        if (result > 0) {
            /* What has come meanwhile is told anew. */
            watch(connection, EPOLLIN);
            return;
        }
    }
    if (connection->watched & EPOLLIN)
        receive(connection, events);
}

static void accept_all(void)
{
    for (;;) {
        int fd = accept4(listening_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            if (!is_error_of_peer(errno))
                DIE("accept: %s", strerror(errno));
        } else if (mode == CLOSE) {
            close(fd);
        } else {
            begin(fd);
        }
    }
}

int main(int count, char **words)
{
    const struct option_number options[] = {{"--body", 0, 1 << 30, &body_bytes},
                                            {"--buffer-size", 1, 1 << 30, &buffer_bytes},
                                            {NULL, 0, 0, NULL}};
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN}};
    if (count < 3)
        DIE("usage: server_epoll MODE ADDRESS [--body N] [--buffer-size BYTES]");
    mode = parse_mode(words[1]);
    parse_options(count - 3, words + 3, options);
    http_prepare();
    buffer = (char *)allocate(NULL, (size_t)buffer_bytes);
    CHECK((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll_create1");
    listening_fd = start_listening(words[2], SOCK_NONBLOCK);
    CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listening_fd, events) == 0, "epoll_ctl");
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        CHECK(ready >= 0 || errno == EINTR, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                handle((struct connection *)events[i].data.ptr, events[i].events);
            else
                accept_all();
        }
    }
}
