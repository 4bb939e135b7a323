/* server_uring.c: the server that the event loops are compared with, on io_uring by liburing.
 *
 * usage: server_uring MODE ADDRESS [--body N] [--buffers N] [--buffer-size BYTES] [--big-size BYTES] [--direct BYTES]
 *                     [--entries N]
 * MODE, ADDRESS and --body are told in server.h. By hand:
 *     cc -std=gnu11 -O2 -o server_uring server_uring.c -luring && ./server_uring echo tcp:7777
 *
 * One multishot request accepts; one on each connection receives, into a ring of --buffers buffers of --buffer-size bytes
 * that all share, which are free again before the next system call. An iteration waits in one system call, which submits
 * what the one before has prepared. Answers of --direct bytes and more are tried at once by send(): with 1, all of them,
 * which was measured 4 % cheaper than to leave the small ones to the ring. What is not, what the socket has no room for, and
 * messages of broadcast (20 % cheaper so) leave as one send by the ring for each connection and iteration. Connections that
 * receive big pieces are polled by the ring, and received from into one buffer of --big-size bytes that stays in the cache.
 * --entries is the size of the submission queue. */
#include "ring.h"
#include "server.h"

#include <poll.h>

/* What a completion is about stands in the lowest bits of its user data, the others are the address of the connection. */
enum about { ACCEPT, RECEIVE, POLL, SEND, CANCEL, CLOSED, ABOUT = 7 };

/* A connection that has received so much at a time, so many times in a row, is a big one: it is polled, and received from
 * into one buffer that stays in the cache. */
#define BIG_PIECE 16384
#define BIG_STREAK 2
/* How many full buffers it may hand over before it is the others' turn. */
#define FULL_BUFFERS 8

/* Bytes that many connections are sent. */
struct message {
    size_t references;
    size_t count;
    char data[];
};

struct connection {
    int fd;
    unsigned requests; /* how many are with the kernel */
    unsigned receiving : 1;
    unsigned big : 1;        /* it is polled instead */
    unsigned polling : 1;
    unsigned readable : 1;   /* and there may be something to receive */
    unsigned ended : 1;      /* or the other end has finished */
    unsigned streak : 2;     /* how many big pieces it has received one after the other */
    unsigned cancelling : 1; /* the one or the other is being cancelled */
    unsigned sending : 1;
    unsigned at_once : 1; /* ending while it is submitted */
    unsigned full : 1;    /* the socket did not take all of the send before */
    unsigned closing : 1; /* nothing more comes: to be closed when all is sent */
    unsigned broken : 1;  /* to be closed when the kernel has let go of it */
    unsigned changed : 1; /* it stands in `changed` */
    unsigned congested : 1;
    unsigned starved : 1; /* it stands in `starved`: there was no buffer for it */
    size_t index; /* in `connections` */
    struct connection *next_changed;
    struct connection *next_at_once;
    struct connection *next_starved;
    size_t in_flight; /* bytes of the send with the kernel */
    struct bytes flight; /* what is being sent */
    struct bytes queue;  /* and what is to be sent after it */
    struct message *message; /* being sent instead, or before the queue */
    size_t message_sent;
    struct http http;
};

#include "audience.h"

static int listening_fd;
static long direct_bytes = 1;

static long big_bytes = 256 << 10;
static char *big_buffer;

/* Connections whose send ends while it is submitted, and that have nothing to do then. It completes only where it has failed
 * or not sent all, so that the system call which submits it goes on to wait for something to do. */
static struct connection *at_once;

/* Connections that something has happened to in this iteration. */
static struct connection *changed;

/* Connections that found no buffer, the one that has waited longest first. No more of them go on receiving at a time than
 * there are buffers: the others would find none again. */
static struct connection *starved, **starved_end = &starved;

static void set_user_data(struct io_uring_sqe *entry, struct connection *connection, enum about about)
{
    io_uring_sqe_set_data64(entry, (uintptr_t)connection | about);
    if (connection)
        connection->requests++;
}

static void start_accepting(void)
{
    struct io_uring_sqe *entry = get_entry();
    io_uring_prep_multishot_accept(entry, listening_fd, NULL, NULL, SOCK_CLOEXEC);
    set_user_data(entry, NULL, ACCEPT);
}

static void start_receiving(struct connection *connection)
{
    struct io_uring_sqe *entry = get_entry();
    io_uring_prep_recv_multishot(entry, connection->fd, NULL, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = 0;
    set_user_data(entry, connection, RECEIVE);
    connection->receiving = 1;
}

static void start_polling(struct connection *connection)
{
    struct io_uring_sqe *entry = get_entry();
    io_uring_prep_poll_multishot(entry, connection->fd, POLLIN | POLLRDHUP);
    set_user_data(entry, connection, POLL);
    connection->polling = 1;
}

static void cancel(struct connection *connection, enum about about)
{
    struct io_uring_sqe *entry = get_entry();
    io_uring_prep_cancel64(entry, (uintptr_t)connection | about, 0);
    set_user_data(entry, connection, CANCEL);
    connection->cancelling = 1;
}

static void note_change(struct connection *connection)
{
    if (connection->changed)
        return;
    connection->changed = 1;
    connection->next_changed = changed;
    changed = connection;
}

static void begin(int fd)
{
    struct connection *connection = (struct connection *)allocate(NULL, sizeof *connection);
    memset(connection, 0, sizeof *connection);
    connection->fd = fd;
    if (mode == BROADCAST)
        audience_add(connection);
    start_receiving(connection);
}

static void release_message(struct connection *connection)
{
    if (connection->message && --connection->message->references == 0)
        free(connection->message);
    connection->message = NULL;
}

/* Whether too much waits to be sent for more to be read. */
static void weigh(struct connection *connection)
{
    unsigned congested = bytes_left(&connection->queue) > HIGH_WATER || connection->http.owed > HIGH_WATER;
    if (congested == connection->congested)
        return;
    connection->congested = congested;
    congestion += congested ? 1 : (size_t)-1;
    if (mode == BROADCAST && first)
        note_change(first);
}

static int is_sending(const struct connection *connection)
{
    return connection->sending || connection->message || bytes_left(&connection->flight) ||
           bytes_left(&connection->queue) || connection->http.owed;
}

static int is_held_back(const struct connection *connection)
{
    int own = connection->congested || (connection->big && is_sending(connection));
    return mode == BROADCAST ? connection == first && congestion : own;
}

static void end(struct connection *connection)
{
    close(connection->fd);
    if (mode == BROADCAST)
        audience_remove(connection);
    release_message(connection);
    bytes_free(&connection->queue);
    bytes_free(&connection->flight);
    memset(&connection->queue, 0, sizeof connection->queue);
    connection->http.owed = 0;
    weigh(connection);
    bytes_free(&connection->http.head);
    free(connection);
}

/* -- Sending ----------------------------------------------------------------------------------------------------------- */

static void start_sending(struct connection *connection)
{
    struct http *http = &connection->http;
    struct io_uring_sqe *entry;
    const char *data;
    size_t count;
    if (connection->message) {
        data = connection->message->data + connection->message_sent;
        count = connection->message->count - connection->message_sent;
    } else if (http->owed) {
        data = http_data(http);
        count = http_piece(http);
    } else {
        if (!bytes_left(&connection->flight)) {
            struct bytes empty = connection->flight;
            if (!bytes_left(&connection->queue))
                return;
            connection->flight = connection->queue;
            connection->queue = empty;
            weigh(connection);
        }
        data = connection->flight.data + connection->flight.begin;
        count = bytes_left(&connection->flight);
    }
    entry = get_entry();
    io_uring_prep_send(entry, connection->fd, data, count, MSG_NOSIGNAL | MSG_WAITALL);
    set_user_data(entry, connection, SEND);
    connection->sending = 1;
    connection->in_flight = count;
    if (connection->full)
        return;
    /* With these two flags sending less than all is a failure. */
    entry->msg_flags |= MSG_DONTWAIT;
    if (connection->closing || connection->congested || connection->big || http->owed > count ||
        bytes_left(&connection->queue))
        return;
    entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
    connection->at_once = 1;
    connection->next_at_once = at_once;
    at_once = connection;
}

static void on_sent(struct connection *connection, int result)
{
    size_t count = result < 0 ? 0 : (size_t)result;
    connection->sending = connection->at_once = 0;
    connection->full = count < connection->in_flight;
    if (result < 0 && result != -EAGAIN && result != -EINTR) {
        connection->broken = 1;
    } else if (connection->message) {
        connection->message_sent += count;
        if (!connection->full)
            release_message(connection);
    } else if (connection->http.owed) {
        http_sent(&connection->http, count);
        weigh(connection);
    } else {
        bytes_drop(&connection->flight, count);
    }
    note_change(connection);
}

/* All that have failed have been told: the others have sent all. */
static void conclude_sends(void)
{
    while (at_once) {
        struct connection *connection = at_once;
        at_once = connection->next_at_once;
        if (!connection->at_once)
            continue;
        connection->requests--;
        on_sent(connection, (int)connection->in_flight);
    }
}

static void keep(struct connection *connection, const char *data, size_t count)
{
    bytes_append(&connection->queue, data, count);
    weigh(connection);
    note_change(connection);
}

/* Send at once. Returns how many bytes need no more care: fewer than all where the socket has no room for them. */
static size_t send_directly(struct connection *connection, const char *data, size_t count)
{
    ssize_t sent = send(connection->fd, data, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if ((size_t)sent == count)
        return count;
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM) {
        connection->broken = 1;
        note_change(connection);
        return count;
    }
    connection->full = 1;
    return sent < 0 ? 0 : (size_t)sent;
}

static void send_or_keep(struct connection *connection, const char *data, size_t count)
{
    size_t sent = 0;
    if (count >= (size_t)direct_bytes && !is_sending(connection))
        sent = send_directly(connection, data, count);
    if (sent < count)
        keep(connection, data + sent, count - sent);
}

static void take_requests(struct connection *connection, const char *data, size_t count)
{
    struct http *http = &connection->http;
    int idle = !http->owed;
    connection->closing = !http_take(http, data, count);
    while (idle && http->owed >= (size_t)direct_bytes) {
        size_t piece = http_piece(http), sent = send_directly(connection, http_data(http), piece);
        http_sent(http, sent);
        idle = sent == piece;
    }
    if (http->owed || connection->closing) {
        weigh(connection);
        note_change(connection);
    }
}

static void broadcast(const char *data, size_t count)
{
    struct message *message = (struct message *)allocate(NULL, sizeof *message + count);
    message->references = 1;
    message->count = count;
    memcpy(message->data, data, count);
    for (size_t i = 0; i < connection_count; i++) {
        struct connection *to = connections[i];
        if (to->broken || to->closing)
            continue;
        if (count >= BIG_PIECE || is_sending(to)) {
            send_or_keep(to, data, count);
        } else {
            to->message = message;
            to->message_sent = 0;
            message->references++;
            note_change(to);
        }
    }
    if (--message->references == 0)
        free(message);
}

/* -- Receiving --------------------------------------------------------------------------------------------------------- */

static void take(struct connection *connection, const char *data, size_t count)
{
    if (connection->broken || connection->closing)
        return;
    switch (mode) {
    case ECHO:
        send_or_keep(connection, data, count);
        break;
    case HTTP:
        take_requests(connection, data, count);
        break;
    default:
        if (connection == first)
            broadcast(data, count);
    }
}

static void become_big(struct connection *connection)
{
    connection->big = 1;
    /* Its polling starts when its multishot receive has ended. */
    connection->readable = 1;
    note_change(connection);
}

/* Receive what a big one has, into the buffer that stays in the cache. */
static void receive_big(struct connection *connection)
{
    for (int i = 0; i < FULL_BUFFERS; i++) {
        ssize_t count;
        if (is_held_back(connection) || connection->closing || connection->broken)
            return;
        count = recv(connection->fd, big_buffer, (size_t)big_bytes, MSG_DONTWAIT);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            connection->readable = 0;
            connection->closing = count == 0;
            connection->broken = count < 0 && errno != EAGAIN;
            if (connection->closing || connection->broken)
                note_change(connection);
            return;
        }
        take(connection, big_buffer, (size_t)count);
        /* Less than there was room for: there was no more. The end may have been told together with the last bytes. */
        if (count < big_bytes && !connection->ended) {
            connection->readable = 0;
            return;
        }
    }
    note_change(connection);
}

static void starve(struct connection *connection)
{
    connection->starved = 1;
    connection->requests++; /* as if it were with the kernel: it is not to go away */
    connection->next_starved = NULL;
    *starved_end = connection;
    starved_end = &connection->next_starved;
}

static void feed(void)
{
    for (long left = buffer_count; starved && left; left--) {
        struct connection *connection = starved;
        starved = connection->next_starved;
        if (!starved)
            starved_end = &starved;
        connection->starved = 0;
        connection->requests--;
        note_change(connection);
    }
}

static void on_received(struct connection *connection, const struct io_uring_cqe *completion)
{
    int result = completion->res;
    if (completion->flags & IORING_CQE_F_BUFFER) {
        unsigned number = completion->flags >> IORING_CQE_BUFFER_SHIFT;
        char *data = buffer_at(number);
        if (result > 0)
            take(connection, data, (size_t)result);
        give_buffer_back(number);
        if (result < BIG_PIECE)
            connection->streak = 0;
        else if (++connection->streak == BIG_STREAK)
            become_big(connection);
    }
    if (result == 0)
        connection->closing = 1;
    else if (result == -ENOBUFS)
        starve(connection);
    else if (result < 0 && result != -ECANCELED && result != -EINTR && result != -EAGAIN)
        connection->broken = 1;
    if (!(completion->flags & IORING_CQE_F_MORE)) {
        connection->receiving = 0;
        note_change(connection);
    }
}

static void on_polled(struct connection *connection, const struct io_uring_cqe *completion)
{
    if (completion->res < 0 && completion->res != -ECANCELED)
        connection->broken = 1;
    else if (completion->res & (POLLRDHUP | POLLHUP | POLLERR))
        connection->ended = 1;
    connection->readable = 1;
    if (!(completion->flags & IORING_CQE_F_MORE))
        connection->polling = 0;
    note_change(connection);
}

/* -- The loop ---------------------------------------------------------------------------------------------------------- */

static void on_accepted(const struct io_uring_cqe *completion)
{
    if (completion->res < 0) {
        if (!is_error_of_peer(-completion->res))
            DIE("accept: %s", strerror(-completion->res));
    } else if (mode == CLOSE) {
        struct io_uring_sqe *entry = get_entry();
        io_uring_prep_close(entry, completion->res);
        entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
        set_user_data(entry, NULL, CLOSED);
    } else {
        begin(completion->res);
    }
    if (!(completion->flags & IORING_CQE_F_MORE))
        start_accepting();
}

static void handle(const struct io_uring_cqe *completion)
{
    struct connection *connection = (struct connection *)(uintptr_t)(completion->user_data & ~(uint64_t)ABOUT);
    enum about about = (enum about)(completion->user_data & ABOUT);
    if (connection && !(completion->flags & IORING_CQE_F_MORE))
        connection->requests--;
    switch (about) {
    case ACCEPT:
        on_accepted(completion);
        break;
    case RECEIVE:
        on_received(connection, completion);
        break;
    case POLL:
        on_polled(connection, completion);
        break;
    case SEND:
        on_sent(connection, completion->res);
        break;
    case CANCEL:
        connection->cancelling = 0;
        note_change(connection);
        break;
    default:
        DIE("close: %s", strerror(-completion->res));
    }
}

static void handle_all(void)
{
    struct io_uring_cqe *completion;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring, head, completion) {
        handle(completion);
        count++;
    }
    io_uring_cq_advance(&ring, count);
}

/* Prepare what a connection needs next. */
static void settle(struct connection *connection)
{
    if (connection->broken || (connection->closing && !is_sending(connection))) {
        if (!connection->requests)
            return end(connection);
        /* This ends what is with the kernel, except for a poll. */
        shutdown(connection->fd, SHUT_RDWR);
        if (connection->polling && !connection->cancelling)
            cancel(connection, POLL);
        return;
    }
    if (!connection->sending)
        start_sending(connection);
    if (connection->closing)
        return;
    if (connection->big && !connection->receiving) {
        if (!connection->polling)
            start_polling(connection);
        if (connection->readable)
            receive_big(connection);
    } else if (!connection->big && !is_held_back(connection)) {
        if (!connection->receiving && !connection->starved)
            start_receiving(connection);
    } else if (connection->receiving && !connection->cancelling) {
        cancel(connection, RECEIVE);
    }
}

static void settle_all(void)
{
    struct connection *list = changed;
    changed = NULL;
    while (list) {
        struct connection *connection = list;
        list = connection->next_changed;
        connection->changed = 0;
        settle(connection);
    }
}

int main(int count, char **words)
{
    const struct option_number options[] = {{"--body", 0, 1 << 30, &body_bytes},
                                            {"--buffers", 1, 32768, &buffer_count},
                                            {"--buffer-size", 1, 1 << 30, &buffer_bytes},
                                            {"--big-size", 1, 1 << 30, &big_bytes},
                                            {"--direct", 1, 1 << 30, &direct_bytes},
                                            {"--entries", 1, 32768, &entries},
                                            {NULL, 0, 0, NULL}};
    if (count < 3)
        DIE("usage: server_uring MODE ADDRESS [--body N] [--buffers N] [--buffer-size BYTES] [--big-size BYTES] "
            "[--direct BYTES] [--entries N]");
    mode = parse_mode(words[1]);
    parse_options(count - 3, words + 3, options);
    http_prepare();
    open_ring();
    big_buffer = (char *)allocate(NULL, (size_t)big_bytes);
    listening_fd = start_listening(words[2], 0);
    start_accepting();
    for (;;) {
        int busy = changed || starved;
        enter(!busy);
        if (busy)
            io_uring_get_events(&ring);
        for (handle_all(); io_uring_cq_has_overflow(&ring); handle_all())
            io_uring_get_events(&ring);
        conclude_sends();
        show_buffers();
        feed();
        settle_all();
    }
}
