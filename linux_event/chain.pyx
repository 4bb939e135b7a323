"""Chains: operations that the kernel runs one after the other, submitted together.

The requests are held back until the chain is complete, and go to the kernel linked (IOSQE_IO_LINK). A submission ends a
chain, so a chain has to fit into the submission queue; le_loop_fill() waits until there is room for all of it. Behind a
request whose failure the kernel does not take for one the rest waits for its end, see le_chain_release().
"""

cimport cython
from linux_event.arguments cimport flag_argument
from linux_event.core cimport (
    LE_LOOP_OPEN, LE_OP_OF_LINK, LE_OPERATION_OF_OP, LE_WATCHER_OBJECT, le_chain_release, le_link,
)
from linux_event.engine cimport Engine, loop_changed
from linux_event.liburing cimport IOSQE_IO_HARDLINK, IOSQE_IO_LINK
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
            if not is_whole:
                for operation in self.operations:
                    operation.cancel()  # a handler of a signal may close the loop meanwhile: then it is done
            le_chain_release(&self.owner.core, IOSQE_IO_HARDLINK if self.is_hard else IOSQE_IO_LINK)
        loop_changed(self.owner)

    def __repr__(self):
        return f"<{type(self).__name__} {'hard ' if self.is_hard else ''}operations={len(self.operations or ())}>"


cdef object chain_new(Engine loop, object hard):
    cdef Chain chain = Chain.__new__(Chain)
    loop_guard(loop)
    chain.is_hard = flag_argument(hard, "hard")
    chain.owner = loop
    chain.operations = []
    return chain
