/* le_accept.h: a listening socket that is to end without losing anybody who has connected to it.
 *
 * The kernel makes connections before they are accepted, and resets those in the queue of a socket that is closed. To empty the
 * queue first is not enough: whoever comes between the last accept and the close is reset. So nobody is let in any more:
 *
 *   TCP    a filter drops the first packet of a client (SYN without ACK; RFC 9293, 3.1), and nothing else, so that handshakes go
 *          on which have begun. The client sends it again, after a second at first: by then the socket is closed, and another
 *          one of the same address gets it (SO_REUSEPORT), or the client is refused.
 *   Unix   a shutdown for reading: who connects is refused, and what has queued can still be accepted.
 *
 * Connections that are accepted later inherit the filter. They never get such a packet, but of a client that has forgotten
 * them. Handshakes that have not ended when the socket is closed are lost, unless the kernel is told to hand them on to another
 * socket (net.ipv4.tcp_migrate_req). */
#ifndef LE_ACCEPT_H
#define LE_ACCEPT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include "le_many.h"

/* What le_accept_waiting has found. SHORT: no fd for it, many->outcome says why. LATER: no room for another result. */
enum le_accept_verdict { LE_ACCEPT_EMPTY = 0, LE_ACCEPT_TAKEN, LE_ACCEPT_SHORT, LE_ACCEPT_LATER };

/* Let nobody in any more. Returns whether there may be handshakes that go on. Where the kernel refuses it the queue grows on. */
static inline int le_accept_no_more(int fd)
{
    struct sock_filter first_packets[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the flags in the header of TCP */
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {sizeof first_packets / sizeof first_packets[0], first_packets};
    int family = 0;
    socklen_t size = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family == AF_UNIX) {
        shutdown(fd, SHUT_RD);
        return 0;
    }
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

/* Accept the connection that has waited longest, and append it to the results. The request of `many` is not with the kernel.
 * The socket does not block from now on, also for others who have it: the flag is theirs too, and whoever put it back would
 * have them wait in their accept4(). */
static inline enum le_accept_verdict le_accept_waiting(struct le_loop *loop, struct le_many *many, int fd)
{
    int connection, error, flags = fcntl(fd, F_GETFL);
    if (!loop->results.free_first)
        return LE_ACCEPT_LATER;
    if (!(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    do {
        connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        error = connection < 0 ? errno : 0;
    } while (error == EINTR || le_is_of_one_connection(error));
    if (!error) {
        le_results_push(&loop->results, &many->results, connection, 0);
        return LE_ACCEPT_TAKEN;
    }
    many->outcome = -error;
    return le_is_shortage(error) ? LE_ACCEPT_SHORT : LE_ACCEPT_EMPTY;
}

#endif
