"""The server of linux_event, on its streams."""

import ssl
from collections.abc import Callable
from typing import Any

from linux_event import Loop, Stream

from . import BACKLOG
from .handlers import maker_of_handlers


def serve(
    _module: str,
    mode: str,
    address: tuple[str, int] | str,
    context: ssl.SSLContext | None,
    *,
    body: int,
    busy_poll: float,
) -> None:
    """Listen, say where, and serve. See `benchmarks.servers.__main__`."""
    # Room for what 1 000 connections may have to say at once.
    with Loop(entries=2048, busy_poll=busy_poll) as loop:
        listener = loop.listen(address, _on_connect(mode, body), backlog=BACKLOG, tls=context)
        where = listener.sockname
        print(f"path {where}" if isinstance(where, str) else f"port {where[1]}", flush=True)
        loop.run()


def _on_connect(mode: str, body: int) -> Callable[[Stream], Any]:
    if mode == "echo":

        def echo(stream: Stream, data: bytes) -> None:
            stream.write(data)

        def on_connect(stream: Stream) -> None:
            stream.on_data = echo

    elif mode == "broadcast":
        streams: set[Stream] = set()

        def to_all(_stream: Stream, data: bytes) -> None:
            for stream in streams:
                stream.write(data)

        def forget(stream: Stream, _error: Exception | None) -> None:
            streams.discard(stream)

        def on_connect(stream: Stream) -> None:
            streams.add(stream)
            stream.on_data = to_all
            stream.on_close = forget

    elif mode == "close":

        def on_connect(stream: Stream) -> None:
            stream.close()

    else:
        handler = maker_of_handlers(mode, body)

        def on_connect(stream: Stream) -> None:
            answer = handler()

            def on_data(stream: Stream, data: bytes) -> None:
                stream.write(answer(data))

            stream.on_data = on_data

    return on_connect
