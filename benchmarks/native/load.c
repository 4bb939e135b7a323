/* load.c: the client that measures servers, on epoll.
 *
 * usage: load MODE ADDRESS --requests R [--connections N] [--size S] [--warmup W] [--depth D] [--spin US] [--timeout SECONDS]
 * ADDRESS is tcp:PORT on 127.0.0.1, or unix:PATH. MODE is
 *   echo       N connections; each sends S bytes, waits for them to come back, and sends again, until R requests have been
 *              answered in all. With --depth D each has D requests on their way. Every byte is compared with what was sent.
 *   churn      N lanes; each connects, and closes and connects again when the server has closed, R times in all. With
 *              --size S above 0 it sends S bytes instead, and closes when they have come back.
 *   broadcast  N receivers and one more connection, made before them, which sends S bytes R times and each time waits until
 *              every receiver has them. Only the receivers' bytes are compared: the sender may get them too, or not.
 * It connects, has W requests answered (as many as connections unless told, in broadcast one), prints "ready", waits for a
 * line on stdin, does what is measured, prints one line of JSON, waits for another line, and ends. By hand:
 *     cc -std=gnu11 -O2 -o load load.c && yes | ./load echo tcp:7777 --connections 50 --size 64 --requests 200000
 *
 * The JSON object has: requests (answered), seconds, bytes (that came back), errors, and of the latency of the requests in
 * microseconds p50, p90, p99, p999, max and mean, exact ones: each is kept. The latency of a request begins before its first
 * byte is sent and ends when its last one has come (in broadcast, the last one of the last receiver; in churn, it lasts from
 * connect to end). A wrong byte, one too many, an early end or a failed call is an error: told on stderr, and that
 * connection is not used any more; where nothing happens for --timeout seconds, the run is over. Errors make status 1,
 * and errors before the measurement end the program.
 *
 * Between events it polls for --spin microseconds before it sleeps, so that no server pays for waking it up. */
#include "native.h"

#include <signal.h>
#include <sys/epoll.h>

#define EVENTS 512
#define PERIOD 65521u             /* of the bytes that are sent, so that no two connections send the same for long */
#define CHUNK ((size_t)256 << 10) /* what one call moves at most */
#define MESSAGES_MAX 5

enum mode { ECHO, CHURN, BROADCAST };

struct connection {
    int fd; /* -1: given up, or not there */
    int blocked; /* it waits until it can send */
    size_t number;
    size_t offset; /* where in the pattern its bytes begin */
    uint64_t sent; /* bytes; so are the next two */
    uint64_t to_send;
    uint64_t received;
    uint64_t begun; /* requests */
    uint64_t answered;
    uint64_t *begun_at; /* the last `depth` ones */
};

static enum mode mode;
static long connection_count = 1, size = -1, requests = 0, warmup = -1, depth = 1, spin_us = 200, timeout_s = 60;
static struct address address;
static struct connection *connections;
static size_t live; /* how many of them are in use */
static int epoll_fd;
static uint8_t pattern[PERIOD + CHUNK];
static uint8_t buffer[CHUNK];

/* Of the phase, which is either the warm-up or what is measured: */
static int measuring;
static int over; /* before its end */
static uint64_t to_begin, done, lost, bytes, errors;
static uint64_t *latencies;

/* -- Errors ------------------------------------------------------------------------------------------------------------ */

static void drop(struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
    lost += connection->begun - connection->answered;
    connection->begun = connection->answered;
    live--;
    /* What is not for all is for nobody. */
    over |= mode == BROADCAST;
}

#define GIVE_UP(connection, ...)                                                                     \
    do {                                                                                             \
        if (!measuring)                                                                              \
            DIE(__VA_ARGS__);                                                                        \
        if (errors++ < MESSAGES_MAX)                                                                 \
            complain(__VA_ARGS__);                                                                   \
        drop(connection);                                                                            \
    } while (0)

/* -- Connections ------------------------------------------------------------------------------------------------------- */

static void watch(struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    CHECK(epoll_ctl(epoll_fd, operation, connection->fd, &event) == 0, "epoll_ctl");
}

static void reset(struct connection *connection)
{
    connection->blocked = 0;
    connection->sent = connection->to_send = connection->received = 0;
}

/* Sends and receives never wait, whatever the socket: connecting may. */
static void connect_waiting(struct connection *connection)
{
    int result;
    connection->fd = open_socket(&address, 0);
    do
        result = connect(connection->fd, &address.any, address.length);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        DIE("connection %zu: connect: %s", connection->number, strerror(errno));
    live++;
    watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void prepare_connections(size_t count)
{
    connections = (struct connection *)allocate(NULL, count * sizeof *connections);
    memset(connections, 0, count * sizeof *connections);
    for (size_t i = 0; i < count; i++) {
        connections[i].fd = -1;
        connections[i].number = i;
        connections[i].offset = i * 7919 % PERIOD;
        connections[i].begun_at = (uint64_t *)allocate(NULL, (size_t)depth * sizeof(uint64_t));
    }
}

static void answer(struct connection *connection, uint64_t now)
{
    if (measuring)
        latencies[done] = now - connection->begun_at[connection->answered % (uint64_t)depth];
    connection->answered++;
    done++;
}

/* -- Sending and receiving --------------------------------------------------------------------------------------------- */

/* Returns 0 where the connection was given up. */
static int send_more(struct connection *connection)
{
    while (connection->sent < connection->to_send) {
        uint64_t left = connection->to_send - connection->sent;
        const uint8_t *data = pattern + (connection->offset + connection->sent) % PERIOD;
        ssize_t count = send(connection->fd, data, left < CHUNK ? left : CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0) {
            connection->sent += (uint64_t)count;
        } else if (errno == EAGAIN) {
            if (!connection->blocked)
                watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            connection->blocked = 1;
            return 1;
        } else if (errno != EINTR) {
            GIVE_UP(connection, "connection %zu: send: %s", connection->number, strerror(errno));
            return 0;
        }
    }
    if (connection->blocked) {
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
        connection->blocked = 0;
    }
    return 1;
}

/* Receive into `buffer`. Returns the count, 0 for nothing, -1 where the connection has ended, -2 where it was given up. */
static ssize_t receive(struct connection *connection)
{
    for (;;) {
        ssize_t count = recv(connection->fd, buffer, CHUNK, MSG_DONTWAIT);
        if (count > 0)
            return count;
        if (count == 0)
            return -1;
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR) {
            GIVE_UP(connection, "connection %zu: receive: %s", connection->number, strerror(errno));
            return -2;
        }
    }
}

static void give_up_early(struct connection *connection, uint64_t expected)
{
    GIVE_UP(connection, "connection %zu: the server has closed it after %llu of %llu bytes", connection->number,
            (unsigned long long)connection->received, (unsigned long long)expected);
}

/* Compare what has come with what was sent, `expected` bytes. Returns 0 where the connection was given up. */
static int compare(struct connection *connection, const uint8_t *data, size_t count, uint64_t expected)
{
    const uint8_t *right = pattern + (connection->offset + connection->received) % PERIOD;
    if (count > expected - connection->received) {
        GIVE_UP(connection, "connection %zu: more than the %llu bytes that were sent have come", connection->number,
                (unsigned long long)expected);
        return 0;
    }
    if (memcmp(data, right, count)) {
        size_t at = 0;
        while (data[at] == right[at])
            at++;
        GIVE_UP(connection, "connection %zu: byte %llu is 0x%02x, 0x%02x was sent", connection->number,
                (unsigned long long)connection->received + at, data[at], right[at]);
        return 0;
    }
    connection->received += count;
    bytes += count;
    return 1;
}

/* -- Echo -------------------------------------------------------------------------------------------------------------- */

static void echo_begin(struct connection *connection, uint64_t now)
{
    while (to_begin && connection->begun - connection->answered < (uint64_t)depth) {
        connection->begun_at[connection->begun++ % (uint64_t)depth] = now;
        connection->to_send += (uint64_t)size;
        to_begin--;
    }
}

static void echo_handle(struct connection *connection, uint32_t events)
{
    ssize_t count;
    if (events & EPOLLOUT && !send_more(connection))
        return;
    do {
        count = receive(connection);
        if (count == -1)
            give_up_early(connection, connection->to_send);
        if (count < 0 || (count && !compare(connection, buffer, (size_t)count, connection->sent)))
            return;
        if (connection->received >= (connection->answered + 1) * (uint64_t)size) {
            uint64_t now = now_ns();
            do
                answer(connection, now);
            while (connection->received >= (connection->answered + 1) * (uint64_t)size);
            echo_begin(connection, now);
            if (!send_more(connection))
                return;
        }
        /* Less than there was room for: there was no more. The end may have been told together with the last bytes. */
    } while (count && ((size_t)count == CHUNK || events & (EPOLLRDHUP | EPOLLHUP)));
}

/* -- Churn ------------------------------------------------------------------------------------------------------------- */

static void churn_begin(struct connection *connection)
{
    int result;
    if (!to_begin)
        return;
    to_begin--;
    reset(connection);
    connection->to_send = (uint64_t)size;
    connection->begun_at[connection->begun++ % (uint64_t)depth] = now_ns();
    /* On a Unix socket the kernel would not tell when to try again: it waits there. */
    connection->fd = open_socket(&address, address.any.sa_family == AF_UNIX ? 0 : SOCK_NONBLOCK);
    do
        result = connect(connection->fd, &address.any, address.length);
    while (result < 0 && errno == EINTR);
    live++;
    if (result < 0 && errno != EINPROGRESS) {
        GIVE_UP(connection, "connection %zu: connect: %s", connection->number, strerror(errno));
        return;
    }
    watch(connection, EPOLL_CTL_ADD, size ? EPOLLIN | EPOLLOUT : EPOLLIN);
    connection->blocked = size > 0;
}

static void churn_end(struct connection *connection)
{
    answer(connection, now_ns());
    close(connection->fd);
    connection->fd = -1;
    live--;
}

static void churn_go_on(struct connection *connection, uint32_t events)
{
    ssize_t count;
    if (events & EPOLLOUT && !(events & EPOLLERR) && !send_more(connection))
        return;
    while ((count = receive(connection)) > 0) {
        if (!compare(connection, buffer, (size_t)count, connection->sent))
            return;
        if (size && connection->received == (uint64_t)size) {
            churn_end(connection);
            return;
        }
    }
    if (count == -1 && size)
        give_up_early(connection, (uint64_t)size);
    else if (count == -1)
        churn_end(connection);
}

static void churn_handle(struct connection *connection, uint32_t events)
{
    churn_go_on(connection, events);
    if (connection->fd < 0)
        churn_begin(connection);
}

/* -- Broadcast --------------------------------------------------------------------------------------------------------- */

/* The server may accept a connection long after it was made. So first the sender sends single bytes until the receiver that
 * was the last to connect has got one, and then the byte that tells every receiver that after it the messages begin. */
enum marker { PROBE = 0, LAST_PROBE = 255 };

static size_t behind; /* receivers that do not have the whole message, or have not seen the last probe */
static int probing;
static uint64_t goal; /* bytes that the receivers are to have received */

static void broadcast_begin(void)
{
    struct connection *sender = &connections[0];
    goal += (uint64_t)size;
    behind = live - 1;
    sender->to_send = goal;
    to_begin--;
    sender->begun_at[0] = now_ns();
    sender->begun++;
    send_more(sender);
}

static void broadcast_handle(struct connection *connection, uint32_t events)
{
    ssize_t count;
    if (events & EPOLLOUT && !send_more(connection))
        return;
    while ((count = receive(connection)) > 0) {
        const uint8_t *data = buffer;
        if (connection->number == 0)
            continue;
        if (probing) {
            const uint8_t *last = (const uint8_t *)memchr(buffer, LAST_PROBE, (size_t)count);
            connection->received = 1;
            if (!last)
                continue;
            connection->received = 0;
            behind--;
            count -= last + 1 - buffer;
            data = last + 1;
        }
        if (!compare(connection, data, (size_t)count, goal))
            return;
        if (count && connection->received == goal && --behind == 0) {
            answer(&connections[0], now_ns());
            if (to_begin)
                broadcast_begin();
        }
    }
    if (count == -1)
        give_up_early(connection, goal);
}

/* -- The run ----------------------------------------------------------------------------------------------------------- */

static void handle(struct connection *connection, uint32_t events)
{
    if (connection->fd < 0 || over)
        return;
    if (mode == ECHO)
        echo_handle(connection, events);
    else if (mode == CHURN)
        churn_handle(connection, events);
    else
        broadcast_handle(connection, events);
}

/* Handle what has happened, or wait for it a while. Returns 0 where nothing has happened for too long. */
static int turn(void)
{
    static struct epoll_event events[EVENTS];
    static uint64_t idle_since; /* 0: it is not idle */
    int timeout = 0, ready;
    if (idle_since) {
        uint64_t idle_ns = now_ns() - idle_since;
        if (idle_ns > (uint64_t)timeout_s * 1000000000u) {
            idle_since = 0;
            return 0;
        }
        timeout = idle_ns > (uint64_t)spin_us * 1000 ? 100 : 0;
    }
    ready = epoll_wait(epoll_fd, events, EVENTS, timeout);
    CHECK(ready >= 0 || errno == EINTR, "epoll_wait");
    if (ready > 0)
        idle_since = 0;
    else if (!idle_since)
        idle_since = now_ns();
    for (int i = 0; i < ready; i++)
        handle((struct connection *)events[i].data.ptr, events[i].events);
    return 1;
}

static void run(uint64_t count)
{
    to_begin = count;
    done = lost = bytes = 0;
    if (mode == BROADCAST) {
        if (to_begin)
            broadcast_begin();
    } else {
        for (size_t i = 0; i < (size_t)connection_count && to_begin; i++) {
            if (mode == CHURN) {
                churn_begin(&connections[i]);
            } else if (connections[i].fd >= 0) {
                echo_begin(&connections[i], now_ns());
                send_more(&connections[i]);
            }
        }
    }
    while (done + lost < count && live && !over) {
        if (turn())
            continue;
        if (!measuring)
            DIE("nothing has happened for %ld s, with %llu of %llu requests answered", timeout_s,
                (unsigned long long)done, (unsigned long long)count);
        complain("nothing has happened for %ld s, with %llu of %llu requests answered", timeout_s,
                 (unsigned long long)done, (unsigned long long)count);
        errors++;
        return;
    }
}

static void make_connections(void)
{
    size_t count = (size_t)connection_count + (mode == BROADCAST);
    prepare_connections(count);
    if (mode == CHURN)
        return;
    for (size_t i = 0; i < count; i++)
        connect_waiting(&connections[i]);
    if (mode == ECHO)
        return;
    uint64_t deadline = now_ns() + (uint64_t)timeout_s * 1000000000u;
    probing = 1;
    behind = live - 1;
    for (size_t i = 0; i < count; i++)
        connections[i].offset = 0;
    for (uint8_t byte = PROBE; behind;) {
        uint64_t next = now_ns() + 20000000u;
        if (connections[count - 1].received)
            byte = LAST_PROBE;
        CHECK(send(connections[0].fd, &byte, 1, MSG_NOSIGNAL) == 1, "send");
        while (now_ns() < (byte == PROBE ? next : deadline) && behind)
            if (byte == PROBE && connections[count - 1].received)
                break;
            else
                turn();
        if (now_ns() > deadline)
            DIE("what the first connection sends does not come to all within %ld s", timeout_s);
    }
    probing = 0;
}

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Nothing must come that nobody has asked for. */
static void look_for_more(void)
{
    for (size_t i = 0; i < (size_t)connection_count; i++) {
        struct connection *connection = &connections[i];
        ssize_t count = connection->fd < 0 ? 0 : receive(connection);
        if (count == -1)
            give_up_early(connection, connection->to_send);
        else if (count > 0)
            compare(connection, buffer, (size_t)count, connection->sent);
    }
}

/* The latency that this part of the requests does not exceed, in microseconds. */
static double percentile(double part)
{
    uint64_t rank = (uint64_t)(part * (double)done);
    if ((double)rank < part * (double)done)
        rank++;
    return done ? (double)latencies[rank ? rank - 1 : 0] / 1000 : 0;
}

static void report(double seconds)
{
    double sum = 0;
    for (uint64_t i = 0; i < done; i++)
        sum += (double)latencies[i];
    qsort(latencies, done, sizeof *latencies, compare_numbers);
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"bytes\": %llu, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, "
           "\"p999\": %.3f, \"max\": %.3f, \"mean\": %.3f, \"errors\": %llu}\n",
           (unsigned long long)done, seconds, (unsigned long long)bytes, percentile(0.5), percentile(0.9),
           percentile(0.99), percentile(0.999), percentile(1), done ? sum / (double)done / 1000 : 0,
           (unsigned long long)errors);
    CHECK(fflush(stdout) == 0, "stdout");
}

static void await_line(void)
{
    int character;
    do
        character = getchar();
    while (character != '\n' && character != EOF);
}

int main(int count, char **words)
{
    const struct option_number options[] = {{"--connections", 1, 1000000, &connection_count},
                                            {"--size", 0, 1 << 30, &size},
                                            {"--requests", 1, 1000000000, &requests},
                                            {"--warmup", 0, 1000000000, &warmup},
                                            {"--depth", 1, 1000000, &depth},
                                            {"--spin", 0, 1000000000, &spin_us},
                                            {"--timeout", 1, 1000000, &timeout_s},
                                            {NULL, 0, 0, NULL}};
    static const char *const names[] = {"echo", "churn", "broadcast"};
    uint64_t begun;
    double seconds;
    uint32_t random = 1;
    if (count < 3)
        DIE("usage: load MODE ADDRESS --requests R [--connections N] [--size S] [--warmup W] [--depth D] [--spin US] "
            "[--timeout SECONDS]");
    while (mode < sizeof names / sizeof *names && strcmp(words[1], names[mode]))
        mode++;
    if (mode == sizeof names / sizeof *names)
        DIE("no such mode: %s", words[1]);
    parse_options(count - 3, words + 3, options);
    if (!requests)
        DIE("--requests is missing");
    if (size < 0)
        size = mode == CHURN ? 0 : 64;
    if (!size && mode != CHURN)
        DIE("--size takes a number above 0 here");
    if (mode != ECHO)
        depth = 1;
    if (warmup < 0)
        warmup = mode == BROADCAST ? 1 : connection_count;
    address = parse_address(words[2]);
    raise_fd_limit();
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof pattern; i++) {
        random = random * 1664525u + 1013904223u;
        pattern[i] = i < PERIOD ? (uint8_t)(random >> 24) : pattern[i - PERIOD];
    }
    CHECK((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll_create1");
    latencies = (uint64_t *)allocate(NULL, (size_t)requests * sizeof *latencies);
    /* Its pages are to be there before the clock runs. */
    memset(latencies, 1, (size_t)requests * sizeof *latencies);
    make_connections();
    run((uint64_t)warmup);
    puts("ready");
    CHECK(fflush(stdout) == 0, "stdout");
    await_line();
    measuring = 1;
    begun = now_ns();
    run((uint64_t)requests);
    seconds = (double)(now_ns() - begun) / 1e9;
    if (mode == ECHO)
        look_for_more();
    report(seconds);
    await_line();
    return errors != 0;
}
