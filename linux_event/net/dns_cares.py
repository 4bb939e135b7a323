"""Names by c-ares: its sockets are watched by the loop, its deadlines are a timer of the loop. No thread waits for an answer.

pycares keeps what a question refers to until it is answered, wherever the loop has gone meanwhile. So nothing that it is given
refers to the loop, or to an operation, but by weak references.
"""

import itertools
import os
from _socket import (
    EAI_AGAIN,
    EAI_FAIL,
    EAI_FAMILY,
    EAI_MEMORY,
    EAI_NODATA,
    EAI_NONAME,
    gaierror,
)
from functools import partial
from math import ceil, log2
from time import monotonic
from weakref import WeakSet, ref

import pycares

from linux_event.events import Events
from linux_event.net.answers import addresses_of
from linux_event.net.masked import signals_blocked
from linux_event.net.order import in_order
from linux_event.promise import fail, settle, when_abandoned

__all__ = ["Channel"]

TICK_S = 0.001  # the shortest sleep between two looks at the deadlines of c-ares
FIRST_TRY_S = 0.25  # the shortest time after which c-ares asks again; it doubles it with each try
# So many questions are begun within half a second and not answered: the answers, of which there are two each, have to find room
# in the buffer of a socket. What takes longer than that waits in vain, most likely, and does not keep others waiting.
FRESH_MAX = 100
FRESH_S = 0.5
NO_SORT = 1 << 7  # ARES_AI_NOSORT

# What libc says in their place, and the texts of gai_strerror(3).
ERRORS = {
    pycares.errno.ARES_ENOTFOUND: EAI_NONAME,
    pycares.errno.ARES_EBADNAME: EAI_NONAME,
    pycares.errno.ARES_ENODATA: EAI_NODATA,
    pycares.errno.ARES_ETIMEOUT: EAI_AGAIN,
    pycares.errno.ARES_ECONNREFUSED: EAI_AGAIN,
    pycares.errno.ARES_ESERVFAIL: EAI_AGAIN,
    pycares.errno.ARES_EREFUSED: EAI_AGAIN,
    pycares.errno.ARES_ENOTIMP: EAI_AGAIN,
    pycares.errno.ARES_EBADFAMILY: EAI_FAMILY,
    pycares.errno.ARES_ENOMEM: EAI_MEMORY,
}
TEXTS = {
    EAI_NONAME: "Name or service not known",
    EAI_NODATA: "No address associated with hostname",
    EAI_AGAIN: "Temporary failure in name resolution",
    EAI_FAMILY: "ai_family not supported",
    EAI_MEMORY: "Memory allocation failure",
}

numbers = itertools.count()
channels: WeakSet = WeakSet()
of_the_parent: list = []
NOBODY = (lambda: None, None)


def numbers_of(node):
    """The address of a node of an answer, in numbers."""
    host, _, *scope = node.addr
    return b"%b%%%d" % (host, scope[1]) if scope and scope[1] else host


def error_of(status, host):
    """The exception for what c-ares has said."""
    code = ERRORS.get(status, EAI_FAIL)
    text = TEXTS.get(code)
    if text is None:
        text = f"Non-recoverable failure in name resolution ({pycares.errno.strerror(status)})"
    return gaierror(code, text, host)


class Channel:
    """A channel of c-ares, with the configuration that the system had when it was made, and what the loop watches for it."""

    def __init__(self, loop, patience_s):
        self.loop = ref(loop)
        self.patience_s = patience_s
        self.waiting = {}  # number of a question: weak reference to the operation, its Question
        self.queue = {}  # those that have not begun: number: None
        self.begun = {}  # those that have: number: when it is given up; in this order
        self.fresh = {}  # those of them that have just begun: number: until when; in this order
        self.answers = []  # of c-ares, that have not been handed over
        self.watchers = {}  # fd: IOWatcher
        self.timer = None
        self.is_inside = False  # of a call of c-ares
        self.is_dead = False  # it is that of the parent of this process
        own = ref(self)

        def state_changed(fd, readable, writable):
            channel = own()
            if channel is not None:
                channel.watch(fd, readable, writable)

        # There are tries for all of that time, and the end of it is seen to here. It makes them shorter at random: one more.
        tries = ceil(log2(patience_s / FIRST_TRY_S + 1)) + 1
        with signals_blocked():  # the first one starts a thread of pycares, which closes channels
            self.cares = pycares.Channel(sock_state_cb=state_changed, tries=tries)
        channels.add(self)

    def ask(self, operation, question):
        """The driver: see resolver.py."""
        number = next(numbers)
        self.waiting[number] = (ref(operation), question)
        self.queue[number] = None
        when_abandoned(operation, partial(self.abandon, number))
        self.call()

    def begin(self, number):
        """Hand a question to c-ares."""
        own = ref(self)
        _, question = self.waiting[number]
        now = monotonic()
        self.begun[number], self.fresh[number] = now + self.patience_s, now + FRESH_S

        def answered(result, status):
            # Inside of c-ares an exception, be it that of Ctrl-C, would be lost: no more than this is done here.
            channel = own()
            if channel is not None:
                channel.answers.append((number, result, status))

        self.cares.getaddrinfo(question.name, None, family=question.family, flags=NO_SORT, callback=answered)

    def forget(self, number):
        """A question has come to its end. Whether it had not before."""
        for table in (self.queue, self.begun, self.fresh):
            table.pop(number, None)
        return self.waiting.pop(number, None) is not None

    def abandon(self, number):
        """Nobody waits for this answer. c-ares cannot take back one question, but all, when nobody waits for any."""
        if self.forget(number) and not self.waiting and not self.is_dead and not self.is_inside:
            self.call()

    def call(self, *ready):
        """Let c-ares go on with sockets that are ready, begin questions, hand over what it has found, look at deadlines."""
        try:
            self.is_inside = True
            if ready:
                self.cares.process_fd(*ready)
            self.hand_over_all()
            while self.begin_one():
                self.hand_over_all()  # what it knows already
            self.is_inside = False
            self.give_up()
        finally:
            self.is_inside = False
            if self.answers:
                self.set_timer(TICK_S)  # Ctrl-C came between
            elif self.waiting:
                self.set_timer(max(min(self.cares.timeout(), self.next_end() - monotonic()), TICK_S))
            else:
                # Questions that nobody waits for may be left: this closes their sockets.
                self.cares.cancel()
                self.answers.clear()
                self.end_timer()

    def hand_over_all(self):
        """Tell the operations what c-ares has found."""
        while self.answers:
            number, result, status = self.answers[0]
            self.end(number, result, status)
            del self.answers[0]

    def end(self, number, result, status):
        """A question has come to its end, with a result or with an error of c-ares."""
        reference, question = self.waiting.get(number, NOBODY)
        operation = reference()
        if operation is not None:
            try:
                if status is not None:
                    raise error_of(status, question.host)
                settle(operation, addresses_of(question, in_order(map(numbers_of, result.nodes))))
            except Exception as error:
                fail(operation, error.with_traceback(None))
        self.forget(number)

    def begin_one(self):
        """Begin the next question if there is one, and room for it: a bool."""
        now = monotonic()
        while self.fresh and next(iter(self.fresh.values())) <= now:
            del self.fresh[next(iter(self.fresh))]
        if not self.queue or len(self.fresh) >= FRESH_MAX:
            return False
        number = next(iter(self.queue))
        try:
            self.begin(number)
        finally:
            self.queue.pop(number, None)
        return True

    def next_end(self):
        """When there is something to do, if no answer comes."""
        ends = [next(iter(table.values())) for table in (self.begun, self.fresh if self.queue else ()) if table]
        return min(ends, default=0.0)

    def give_up(self):
        """End the questions that have been asked for as long as the configuration says."""
        now = monotonic()
        while self.begun and next(iter(self.begun.values())) <= now:
            self.end(next(iter(self.begun)), None, pycares.errno.ARES_ETIMEOUT)

    # -- What the loop does for it -----------------------------------------------------------------------------------

    def watch(self, fd, readable, writable):
        """c-ares has opened a socket, closes it, or waits for something else."""
        watcher = self.watchers.get(fd)
        if not readable and not writable:
            if watcher is not None:
                del self.watchers[fd]
                watcher.destroy()
            return
        poll = ("r" if readable else "") + ("w" if writable else "")
        if watcher is None:
            self.watchers[fd] = self.loop().io(fd, poll, self.on_ready, ref=False)
        else:
            watcher.poll = poll

    def on_ready(self, watcher, events):
        fd, none = watcher.fd, pycares.ARES_SOCKET_BAD
        # What is neither is an error, which reading tells.
        is_writable = events & Events.WRITE
        is_readable = events & ~Events.WRITE
        self.call(fd if is_readable else none, fd if is_writable else none)

    def on_deadline(self, timer):
        self.call(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)

    def set_timer(self, seconds):
        if self.timer is None:
            self.timer = self.loop().timer(seconds, self.on_deadline, ref=False)
        else:
            self.timer.stop()
            self.timer.after = seconds
            self.timer.start()

    def end_timer(self):
        if self.timer is not None:
            self.timer.destroy()
            self.timer = None

    def die_in_child(self):
        """After a fork, in the child: the sockets are copies, and c-ares must not end the parent's questions."""
        self.is_dead = True
        of_the_parent.append(self.cares)  # its destructor would do that
        for fd in self.watchers:
            os.close(fd)
        self.watchers.clear()


def _after_fork_in_child():
    for channel in list(channels):
        channel.die_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
