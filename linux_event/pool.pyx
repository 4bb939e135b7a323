"""Pools of buffers that receives take from when data have come: no connection needs a buffer while it is quiet.

What is done with the buffers is in le_pool.h; here they are made, registered with the ring of a loop, and given back.
"""

cimport cython
from libc.errno cimport EEXIST
from libc.stdint cimport int64_t, uint32_t
from linux_event.arguments cimport integer_within
from linux_event.core cimport (
    LE_LOOP_OPEN, le_link_leave, le_list_push, le_pool_allocate, le_pool_free, le_pool_grow,
)
from linux_event.engine cimport Engine
from linux_event.errors cimport check
from linux_event.requests cimport loop_guard, owns
from linux_event.ring cimport register_buffer_ring

from linux_event.statistics import PoolStatistics

cdef enum:
    COUNT_DEFAULT = 64
    SIZE_DEFAULT = 16384
    # The pools of a loop itself, but for datagrams: 6 MiB at most. The small one grows until there is a buffer for each
    # connection on which data come at the same time, or for as many as an iteration serves; of each only what the data fill
    # is touched. A stream that fills small buffers gets the big ones: the fewer calls the better, and the less memory is gone
    # round the better, since it has to stay in the cache.
    SMALL_LIMIT = 4 << 20
    BIG_COUNT = 8
    BIG_SIZE = 256 << 10
    # Of datagrams what does not fit is lost. The biggest are those of Unix sockets, with 208 KiB; of a buffer only what the data
    # fill is touched. An odd number of cache lines: the heads of the buffers are not to be in one another's way.
    DATAGRAM_COUNT = 16
    DATAGRAM_SIZE = 3375 * 64
    DATAGRAM_LIMIT = 64 * DATAGRAM_SIZE
    COUNT_MAX = 32768      # entries that the kernel allows a ring of buffers
    GROWTH_COUNT_MAX = 1024
    SIZE_MAX = 1 << 30
    LIMIT_DEFAULT = 4 << 20
    GROUPS = 65536


@cython.final
@cython.no_gc_clear  # the destructor needs the loop
cdef class BufferPool:
    """BufferPool(loop, count=64, size=16384, *, limit=None)
--

Buffers that ``loop.recv_many`` receives into, shared by any number of connections.

A buffer is taken by the kernel at the moment that data have come, and is given back as soon as they have been copied for the
callback. Where all are taken receiving goes on when one has come back; nothing is lost, and nothing spins. The pool then grows
to twice its size, up to a limit. A loop has two pools of its own, of 6 MiB together at most: one with small buffers, and one with
big buffers (256 KiB) for the connections on which much comes at a time. Where there are datagram sockets it has a third one of at
most 64 buffers, of which only what the datagrams fill is touched: 13 MiB if all of them are as long as can be.

:param loop: the ``Loop`` whose operations may use it.
:param count: buffers at the beginning, an int, 1 .. 32768.
:param size: bytes of a buffer, an int, 1 .. 2**30: the most that one call of a callback gets. Big ones suit big streams.
:param limit: bytes up to which it may grow, an int, ``count * size`` or more; None: 4 MiB, or ``count * size`` if that is more.
:raises TypeError, ValueError: an argument has a wrong type; is out of range.
:raises MemoryError, OSError: there is no memory; the kernel refuses (ENOMEM: see ``ulimit -l``).
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on IORING_REGISTER_PBUF_RING. See io_uring_register(2).
"""

    def __init__(self, loop, count=COUNT_DEFAULT, size=SIZE_DEFAULT, *, limit=None):
        if self.owner is not None:
            raise RuntimeError("BufferPool.__init__ was called twice")
        if not isinstance(loop, Engine):  # a base of Loop
            raise TypeError(f"loop must be a Loop, not {type(loop).__name__} ({loop!r})")
        cdef int64_t first = integer_within(count, "count", 1, COUNT_MAX)
        cdef int64_t bytes_each = integer_within(size, "size", 1, SIZE_MAX)
        cdef int64_t bytes_max = max(<int64_t>LIMIT_DEFAULT, first * bytes_each)
        if limit is not None:
            bytes_max = integer_within(limit, "limit", first * bytes_each, <int64_t>COUNT_MAX * SIZE_MAX)
        loop_guard(<Engine>loop)
        cdef int64_t count_max = max(first, min(bytes_max // bytes_each, <int64_t>GROWTH_COUNT_MAX))
        if le_pool_allocate(&self.pool, <uint32_t>bytes_each, <uint32_t>count_max):
            raise MemoryError(f"no memory for a pool of buffers of {bytes_max} bytes")
        self.owner = loop
        register(self)
        self.is_open = True
        le_list_push(&self.owner.core.pools, &self.pool.link)
        le_pool_grow(&self.pool, <uint32_t>first)

    def __dealloc__(self):
        if self.is_open:
            unregister(self)
        if not self.pool.users:
            le_pool_free(&self.pool)

    def statistics(self):
        """Return a ``linux_event.statistics.PoolStatistics``: counts of this pool at this moment. Works on a closed one too."""
        cdef int waiting = 0
        if self.is_open:
            link = self.pool.waiting.next
            while link != &self.pool.waiting:
                waiting += 1
                link = link.next
        return PoolStatistics(
            buffers=self.pool.count,
            size=self.pool.size,
            bytes=<int64_t>self.pool.count * self.pool.size,
            provided=self.pool.provided,
            in_use=self.pool.in_use,
            waiting=waiting,
            exhausted=self.pool.exhausted,
            grown=self.pool.grown,
        )

    def close(self):
        """Give the memory back. Idempotent. Closing its loop does it too, as does dropping the pool.

        :raises RuntimeError: operations use it that are not done: cancel them first, and let the loop run.
        :raises WrongThreadError: the loop belongs to another thread.

        Stands on IORING_UNREGISTER_PBUF_RING. See io_uring_register(2).
        """
        if not self.is_open:
            return
        if self.pool.users:
            raise RuntimeError(f"{self!r} is used by {self.pool.users} operations that are not done: cancel them first")
        if self.owner.core.state == LE_LOOP_OPEN:
            loop_guard(self.owner)
        self.is_open = False
        unregister(self)
        le_pool_free(&self.pool)

    def is_closed(self):
        """Return whether ``close`` was called, or the loop was closed: a bool."""
        return not self.is_open or self.pool.link.next == NULL

    @property
    def loop(self):
        """The loop of the pool."""
        return self.owner

    def __enter__(self):
        pool_guard(self)
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        state = "closed" if self.is_closed() else f"in_use={self.pool.in_use}"
        return f"<{type(self).__name__} buffers={self.pool.count} size={self.pool.size} {state}>"


cdef int register(BufferPool self) except -1:
    """Register it under a number that is free. One that could not be taken back stays taken."""
    cdef int tries = GROUPS
    cdef int error = -EEXIST
    while error == -EEXIST and tries:
        tries -= 1
        self.pool.group = self.owner.core.next_group
        self.owner.core.next_group += 1
        error = register_buffer_ring(&self.owner.core.ring, self.pool.ring, self.pool.entries, self.pool.group)
    return check(error)


cdef int unregister(BufferPool self) noexcept:
    le_link_leave(&self.pool.link)
    # Another thread may not do it. The memory is free all the same: nothing uses the group any more.
    if self.owner.core.state == LE_LOOP_OPEN and owns(self.owner):
        register_buffer_ring(&self.owner.core.ring, NULL, 0, self.pool.group)
    return 0


cdef int pool_guard(BufferPool self) except -1:
    if self.is_closed():
        raise RuntimeError(f"{self!r} is closed: create a new one")
    return 0


cdef BufferPool pool_argument(Engine loop, object pool):
    if pool is None:
        return small_pool(loop)
    if not isinstance(pool, BufferPool):
        raise TypeError(f"pool must be a BufferPool or None, not {type(pool).__name__} ({pool!r})")
    if (<BufferPool>pool).owner is not loop:
        raise ValueError(f"{pool!r} belongs to another loop")
    pool_guard(<BufferPool>pool)
    return pool


cdef BufferPool small_pool(Engine loop):
    if loop.small_pool is None:
        loop.small_pool = BufferPool(loop, limit=SMALL_LIMIT)
    return loop.small_pool


cdef BufferPool big_pool(Engine loop):
    if loop.big_pool is None:
        loop.big_pool = BufferPool(loop, BIG_COUNT, BIG_SIZE, limit=BIG_COUNT * BIG_SIZE)
    return loop.big_pool


cdef BufferPool datagram_pool(Engine loop):
    if loop.datagram_pool is None:
        loop.datagram_pool = BufferPool(loop, DATAGRAM_COUNT, DATAGRAM_SIZE, limit=DATAGRAM_LIMIT)
    return loop.datagram_pool
