"""Servers, the second kind of benchmark: one process serves, tied to a core, and another one drives it from a second core.

What is measured is what a server takes for a request while it is busy: its start, the connections and a first part of the
requests come before. `python -m benchmarks.servers PEER MODE ADDRESS` is the server of every loop that Python has;
`benchmarks/native/` holds those in C, which understand the same words.
"""

import resource

# The exit status of a server that cannot do what it is asked for.
NOT_OFFERED = 3
# Connections that may wait to be accepted: more than any client makes at once.
BACKLOG = 4096


def allow_many_fds() -> None:
    """Raise the limit of open files as far as this process may: many systems begin with 1 024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
