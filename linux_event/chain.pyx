"""Chains: operations that the kernel runs one after the other, submitted together.

The requests are held back until the chain is complete, and go to the kernel linked (IOSQE_IO_LINK). A submission ends a
chain, so a chain has to fit into the submission queue; le_loop_fill() waits until there is room for all of it.
"""

cimport cython
from linux_event.arguments cimport flag_argument
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_OP_OF_LINK, LE_OPERATION_OF_OP, LE_WATCHER_OBJECT, le_chain_release, le_link,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.liburing cimport IOSQE_IO_HARDLINK, IOSQE_IO_LINK
from linux_event.loop cimport add_method
from linux_event.operation cimport Operation
from linux_event.requests cimport loop_guard


cdef inline Operation operation_of(le_link *link):
    return <Operation>LE_WATCHER_OBJECT(&LE_OPERATION_OF_OP(LE_OP_OF_LINK(link)).head)


@cython.final
cdef class Chain:
    """What ``loop.link()`` returns, for a ``with`` statement: the operations started inside are one chain."""

    cdef Engine owner
    cdef bint is_hard
    cdef bint is_entered
    cdef bint is_open  # inside the with statement
    cdef readonly list operations
    """The operations of the chain, in their order, once the ``with`` statement has been left: a list of ``Operation``."""

    def __init__(self, *args, **kwargs):
        raise TypeError("Chain cannot be created: call loop.link()")

    def __enter__(self):
        if self.owner is None or self.is_entered:
            raise RuntimeError("a chain is entered once: call loop.link() again")
        loop_guard(self.owner)
        if self.owner.core.is_chaining:
            raise RuntimeError("a chain is being made already: chains cannot be nested")
        self.is_entered = self.is_open = True
        self.owner.core.is_chaining = True
        return self

    def __exit__(self, kind, error, traceback):
        cdef le_link *link
        if not self.is_open:
            raise RuntimeError("this chain is not being made: use link() in a with statement")
        if self.owner.core.state == LE_LOOP_OPEN:
            loop_guard(self.owner)
        self.is_open = False
        if self.owner.core.state != LE_LOOP_OPEN:
            return  # closing it has cancelled them
        is_whole = False
        try:
            link = self.owner.core.chain.next
            while link != &self.owner.core.chain:
                self.operations.append(operation_of(link))
                link = link.next
            is_whole = error is None
        finally:
            # Half a chain is not what was meant. Nothing of it has reached the kernel.
            link = self.owner.core.chain.next
            while not is_whole and link != &self.owner.core.chain:
                operation_of(link).cancel()
                link = link.next
            le_chain_release(&self.owner.core, IOSQE_IO_HARDLINK if self.is_hard else IOSQE_IO_LINK)
        loop_changed(self.owner)

    def __repr__(self):
        return f"<{type(self).__name__} {'hard ' if self.is_hard else ''}operations={len(self.operations or ())}>"


@cython.binding(True)
def _link(self, *, hard=False):
    """Make a chain: the operations started inside a ``with`` statement run one after the other in the kernel.

        with loop.link():
            loop.write(fd, data)
            loop.fsync(fd)

    They are submitted together. When one fails, those behind it are not begun: their callbacks get a CancelledError, which is
    an OSError with ECANCELED too. A read or write that moves less than asked for counts as failed. One that is cancelled, or
    past its ``timeout``, before its turn ends when its turn has come. Where an exception leaves the ``with`` statement, nothing
    of the chain is begun.

    :param hard: True: go on after a failure.
    :returns: a ``Chain``, whose ``operations`` are those started inside.
    :raises LoopClosedError, WrongThreadError: as told by their names.
    :raises TypeError: ``hard`` is not a bool.

    Inside the ``with`` statement an operation that is more than one request (``read_file``, ``accept_many``, ...), and one for
    which there is no more room in the submission queue, raises ValueError; the loop cannot run there.

    Stands on IOSQE_IO_LINK and IOSQE_IO_HARDLINK. See io_uring_enter(2).
    """
    cdef Chain chain = Chain.__new__(Chain)
    loop_guard(self)
    chain.is_hard = flag_argument(hard, "hard")
    chain.owner = self
    chain.operations = []
    return chain


add_method("link", _link)
