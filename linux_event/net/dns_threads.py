"""Names by libc: getaddrinfo in a few threads, of which names that no server answers cannot take all.

A lookup is *fresh* for half a second, and no more than FRESH_MAX are fresh at a time. One that takes longer is waiting for a
server, most likely in vain, and no longer counts: another thread goes on in its place. So a good name waits for a part of a
second, whatever else is being asked, until THREADS_MAX wait in vain; one domain may take DOMAIN_MAX of them. Of those that
wait for their turn the oldest and the newest are taken by turns, domain by domain: whoever comes with one name does not wait
behind whoever came with hundreds.

The threads belong to the process, not to a loop: equal lookups are made once. They are daemons, and end when they have had
nothing to do for a while. The lock is one that a thread may take again: collecting garbage may close a loop at any moment.
"""

import itertools
import os
import threading
from _socket import EAI_AGAIN, gaierror, getaddrinfo
from functools import partial
from time import monotonic
from weakref import ref

from linux_event.net.answers import as_enums
from linux_event.net.masked import signals_blocked
from linux_event.promise import fail, settle, when_abandoned

__all__ = ["ask"]

FRESH_MAX = 8
FRESH_S = 0.5
THREADS_MAX = 160
DOMAIN_MAX = 128
IDLE_S = 5.0
MIB = 1 << 20
STACK_SIZE = 8 * MIB  # as usual

numbers = itertools.count()


class Lookup:
    """One call of getaddrinfo, and who waits for it."""

    __slots__ = ("arguments", "domain", "waiters")

    def __init__(self, arguments):
        self.arguments = arguments
        self.domain = b".".join(arguments[0].lower().rstrip(b".").split(b".")[-2:])
        self.waiters = {}  # number: (weak reference to the operation, host for errors)


class Pool:
    """The threads of a process."""

    def __init__(self, forks=0):
        self.forks = forks  # that lie between the first process with a pool and this one
        self.stack_size = own_stack_size(forks)
        self.condition = threading.Condition(threading.RLock())
        self.known = {}  # arguments: lookup, from its start to its end
        self.queue = {}  # domain: {arguments: lookup}, of those that have not begun
        self.fresh = {}  # lookup: when it will not be so any more, in this order
        self.running = {}  # domain: how many of its lookups have begun
        self.threads = 0
        self.busy = 0  # threads that make a lookup
        self.takes_newest = False

    def ask(self, operation, question):
        """The driver: see resolver.py."""
        number = next(numbers)
        waiter = (ref(operation), question.host)
        arguments = question[1:]
        with self.condition:
            lookup = self.known.get(arguments)
            if lookup is not None:
                lookup.waiters[number] = waiter
            if lookup is None or self.known.get(arguments) is not lookup:
                lookup = Lookup(arguments)
                lookup.waiters[number] = waiter
                self.known[arguments] = lookup
                self.queue.setdefault(lookup.domain, {})[arguments] = lookup
                self.condition.notify()
                self.start()
        when_abandoned(operation, partial(self.abandon, lookup, number))

    def abandon(self, lookup, number):
        """Nobody waits for this answer. A lookup that has not begun, and that nobody waits for, is dropped at its turn."""
        # Without the lock: in a forked child a thread of the parent may seem to hold it for ever.
        lookup.waiters.pop(number, None)

    def start(self):
        """Let there be a thread for the next lookup, or to wait for its turn, if there may be one."""
        if self.threads > self.busy or self.threads >= THREADS_MAX:
            return
        self.threads += 1
        try:
            self.start_thread()
        except (RuntimeError, MemoryError) as error:  # too many threads, or the interpreter is at its end
            self.threads -= 1
            if self.threads == 0:
                for lookup in [lookup for lookups in self.queue.values() for lookup in lookups.values()]:
                    self.finish(lookup, None, gaierror(EAI_AGAIN, f"no thread could be started to ask in: {error}"))
                self.queue.clear()

    def start_thread(self):
        former = threading.stack_size(self.stack_size) if self.stack_size else 0
        try:
            with signals_blocked():
                threading.Thread(target=self.work, name="linux_event resolver", daemon=True).start()
        finally:
            if self.stack_size:
                threading.stack_size(former)

    def work(self):
        """What a thread does."""
        while (lookup := self.next()) is not None:
            found = failure = None
            try:
                found = getaddrinfo(*lookup.arguments)
            except Exception as error:
                failure = error
            with self.condition:
                self.busy -= 1
                self.fresh.pop(lookup, None)
                self.running[lookup.domain] -= 1
                if not self.running[lookup.domain]:
                    del self.running[lookup.domain]
            self.finish(lookup, found, failure)
            del lookup, found, failure

    def next(self):
        """Wait for the next lookup and begin it; None: the thread is to end."""
        with self.condition:
            idle_until = monotonic() + IDLE_S
            while True:
                now = monotonic()
                while self.fresh and next(iter(self.fresh.values())) <= now:
                    del self.fresh[next(iter(self.fresh))]
                until = idle_until
                if len(self.fresh) < FRESH_MAX:
                    lookup = self.take()
                    if lookup is not None:
                        self.fresh[lookup] = now + FRESH_S
                        self.running[lookup.domain] = self.running.get(lookup.domain, 0) + 1
                        self.busy += 1
                        if self.queue:
                            self.start()
                        return lookup
                elif self.queue:
                    until = next(iter(self.fresh.values()))
                    idle_until = now + IDLE_S
                if now >= until:
                    self.threads -= 1
                    return None
                self.condition.wait(until - now)

    def take(self):
        """Take the lookup whose turn it is out of the queue, or None."""
        while True:
            self.takes_newest = not self.takes_newest
            direction = reversed if self.takes_newest else iter
            domain = next((d for d in direction(self.queue) if self.running.get(d, 0) < DOMAIN_MAX), None)
            if domain is None:
                return None
            lookups = self.queue[domain]
            lookup = lookups.pop(next(direction(lookups)))
            if not lookups:
                del self.queue[domain]
            elif not self.takes_newest:
                self.queue[domain] = self.queue.pop(domain)  # to the end
            if lookup.waiters:
                return lookup
            self.forget(lookup)

    def forget(self, lookup):
        if self.known.get(lookup.arguments) is lookup:
            del self.known[lookup.arguments]

    def finish(self, lookup, found, failure):
        """Tell all who wait."""
        with self.condition:
            self.forget(lookup)
            waiters = list(lookup.waiters.values())
        for reference, host in waiters:
            operation = reference()
            if operation is not None:
                try:
                    operation.loop.post(deliver, operation, host, found, failure)
                except RuntimeError:
                    continue  # it has been closed meanwhile


def own_stack_size(forks):
    """The size of the stacks of a pool, in bytes; 0: as usual.

    In a forked child glibc gives the stack of a thread of the parent to the next new thread that it is large enough for, with
    the variables of that thread on it: one that was in the middle of getaddrinfo leaves its socket there, which the parent still
    uses. Question and answer would get into the wrong hands. No stack of the parent is large enough for a larger one.
    """
    if forks == 0:
        return 0
    from resource import RLIM_INFINITY, RLIMIT_STACK, getrlimit

    limit = getrlimit(RLIMIT_STACK)[0]
    return max(STACK_SIZE, 0 if limit == RLIM_INFINITY else -(-limit // MIB) * MIB) + forks * MIB


def deliver(operation, host, found, failure):
    """In the thread of the loop. Each who waited gets a list, or an exception, of his own."""
    if failure is None:
        settle(operation, as_enums(found))
    elif isinstance(failure, gaierror):
        fail(operation, gaierror(failure.errno, failure.strerror, host))
    else:
        fail(operation, failure)


def ask(operation, question):
    """The driver of this process."""
    pool.ask(operation, question)


def _after_fork_in_child():
    """The threads are those of the parent."""
    global pool
    pool = Pool(pool.forks + 1)


pool = Pool()
os.register_at_fork(after_in_child=_after_fork_in_child)
