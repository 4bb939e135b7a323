"""Who is asked for the addresses of a name.

A driver is called with the operation and a Question, in the thread of the loop; it must not raise, and it ends the operation
whenever it knows. There are two: c-ares (dns_cares.py), which only the loop works for, and libc in threads (dns_threads.py).
"""

import os
from _socket import AI_NUMERICSERV, AI_PASSIVE
from weakref import ref

from linux_event.net import dns_threads

__all__ = ["Resolver"]

# The variable of the environment that says who is asked: "cares", "threads", or nothing.
CHOICE = "LINUX_EVENT_RESOLVER"
CARES_VERSION_MIN = 5

RESOLV_CONF, NSSWITCH_CONF, GAI_CONF = "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/gai.conf"
HOSTS = "/etc/hosts"

# Those of resolv.conf(5).
TIMEOUT_S, TIMEOUT_MAX_S, ATTEMPTS, ATTEMPTS_MAX, SERVERS_MAX = 5, 30, 2, 5, 3

# -- The configuration of the system -----------------------------------------------------------------------------------


def version_of(path):
    """What changes when the file does, or another one takes its place; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def lines_of(path):
    """The lines of a file of the configuration as lists of words, without comments."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].partition(";")[0].split()
        if words:
            yield words


def is_beyond_cares():
    """Whether the system finds names in a way that c-ares does not know: then it is left to libc."""
    for words in lines_of(NSSWITCH_CONF):
        if words[0] == "hosts:" and words[1:] not in (["files", "dns"], ["files"], ["dns"], ["dns", "files"]):
            return True
    if any(True for _ in lines_of(GAI_CONF)):
        return True
    return any(words[0] == "options" and "no-aaaa" in words for words in lines_of(RESOLV_CONF))


def patience_s():
    """How long to ask for a name that no server answers, in seconds: as long as libc does, see ``timeout`` in resolv.conf(5).

    c-ares asks a server that has been quick again soon, and does not take the answer to a former try. To hear an answer that
    takes all of the timeout it needs up to three times as long: its tries are a quarter, a half, ... of a second.
    """
    options, servers, domains = [], 0, []
    for words in lines_of(RESOLV_CONF):
        if words[0] == "options":
            options += words[1:]
        elif words[0] == "nameserver":
            servers += 1
        elif words[0] in ("search", "domain"):
            domains = words[1:]
    options += os.environ.get("RES_OPTIONS", "").split()
    values = dict(option.split(":", 1) for option in options if option.count(":") == 1)
    timeout = bounded(values.get("timeout"), TIMEOUT_S, TIMEOUT_MAX_S)
    attempts = bounded(values.get("attempts"), ATTEMPTS, ATTEMPTS_MAX)
    servers = min(max(servers, 1), SERVERS_MAX)
    # All servers are asked one after the other; each further time they share twice the time of the one before.
    of_one_name = servers * timeout + sum(timeout << attempt for attempt in range(1, attempts))
    return max(of_one_name, 3 * timeout) * (1 + len(domains))


def bounded(text, default, most):
    """The number of an option, 1 .. `most`."""
    return min(int(text), most) if text and text.isdigit() and int(text) > 0 else default


def is_of_this_host(name):
    """Whether it is "localhost" or below it: c-ares has addresses of its own for it, whatever the hosts file says."""
    return name.lower().rstrip(b".").rpartition(b".")[2] == b"localhost"


def cares_driver():
    """The module of the driver, or None where pycares is not installed, or of old."""
    try:
        import pycares
    except ImportError:
        return None
    if int(pycares.__version__.partition(".")[0]) < CARES_VERSION_MIN:
        return None
    from linux_event.net import dns_cares

    return dns_cares


class Resolver:
    """What a loop keeps between its questions: the channel of c-ares, and what the configuration was then."""

    def __init__(self, loop):
        self.loop = ref(loop)
        self.channel = None
        self.version = None
        self.is_beyond = False

    def driver(self, name, flags):
        """Who is to be asked for this name: a function."""
        choice = os.environ.get(CHOICE, "")
        if choice not in ("", "cares", "threads"):
            raise ValueError(f'{CHOICE} must be "cares" or "threads", not {choice!r}')
        cares = None if choice == "threads" else cares_driver()
        if cares is None:
            if choice == "cares":
                raise ImportError(
                    f"{CHOICE} is {choice!r}, but pycares {CARES_VERSION_MIN} or newer is not installed: "
                    "pip install linux-event[dns]",
                    name="pycares",
                )
            return dns_threads.ask
        if flags & ~(AI_PASSIVE | AI_NUMERICSERV) or is_of_this_host(name):
            return dns_threads.ask
        version = tuple(map(version_of, (RESOLV_CONF, NSSWITCH_CONF, GAI_CONF, HOSTS)))
        if self.version != version:
            # The former channel, if any, ends by itself when its questions are answered.
            self.channel, self.version, self.is_beyond = None, version, is_beyond_cares()
        if self.is_beyond and choice != "cares":
            return dns_threads.ask
        if self.channel is None:
            self.channel = cares.Channel(self.loop(), patience_s())
        return self.channel.ask
