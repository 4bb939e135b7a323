# chain.pxd: what loop.link() returns without arguments.

from linux_event.engine cimport Engine

# A Chain, for a `with` statement.
cdef object chain_new(Engine loop, object hard)
