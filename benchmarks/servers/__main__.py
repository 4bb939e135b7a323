"""A server: ``python -m benchmarks.servers PEER MODE ADDRESS [--body N] [--busy-poll SECONDS] [--tls FILE]``.

ADDRESS is ``tcp:PORT`` on 127.0.0.1, 0 for one that is free, or ``unix:PATH``. Prints ``port N`` or ``path P`` when it
listens, and serves until it is killed. What a peer cannot do ends it with `NOT_OFFERED` and the reason on stderr.
"""

import argparse
import importlib
import signal
import sys

from . import NOT_OFFERED, allow_many_fds
from .handlers import MODES

# Peer → the module here that serves with it, and the module that has the loop.
PEERS = {
    "linux_event": ("linux_event_server", "linux_event"),
    "asyncio": ("asyncio_server", "asyncio"),
    "uvloop": ("asyncio_server", "uvloop"),
    "rloop": ("asyncio_server", "rloop"),
}


def main() -> int:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("address", metavar="tcp:PORT|unix:PATH")
    parser.add_argument("--body", type=int, default=128, help="bytes in an answer of HTTP")
    parser.add_argument("--busy-poll", type=float, default=0.0, help="seconds; linux_event only")
    parser.add_argument("--tls", metavar="FILE", help="speak TLS with the key and certificates of this file")
    options = parser.parse_args()
    kind, _, rest = options.address.partition(":")
    if kind not in ("tcp", "unix") or not rest:
        parser.error(f"no address: {options.address!r}")
    context = None
    if options.tls:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls)
    module, loop_module = PEERS[options.peer]
    allow_many_fds()
    # Not by an exception in the middle of a callback: nothing is to be tidied here.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve = importlib.import_module(f"{__package__}.{module}").serve
    address = ("127.0.0.1", int(rest)) if kind == "tcp" else rest
    try:
        serve(loop_module, options.mode, address, context, body=options.body, busy_poll=options.busy_poll)
    except NotImplementedError as error:
        print(f"{options.peer} has no {options.address} {'with TLS' if context else ''}: {error}", file=sys.stderr)
        return NOT_OFFERED
    return 0


if __name__ == "__main__":
    sys.exit(main())
