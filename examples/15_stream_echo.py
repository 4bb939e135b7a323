"""An echo server on streams: TCP, and a Unix socket if a path is given. Many clients, one thread.

    python examples/15_stream_echo.py --port 8007 --path /tmp/echo.sock
    nc 127.0.0.1 8007                                # in another terminal; type something
    nc -U /tmp/echo.sock

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it, and removes the file of the Unix socket.
01_echo_server.py is the same without streams: what a stream does for its user is what this program does not have.
"""

import argparse
import contextlib

from linux_event import Loop, Stream


def echo(stream, data):
    # False: the client does not read as fast as it sends. It must not fill our memory, so nothing more is read from it
    # until the queue is nearly empty.
    if not stream.write(data):
        stream.pause_reading()


def on_close(stream, error):
    # An OSError is of the connection: a reset, or the idle timeout. That this program ends is not worth a line.
    if isinstance(error, OSError):
        print(f"connection lost: {error}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Send every byte back to where it came from.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8007)
    parser.add_argument("--path", help="listen on this Unix socket, too")
    parser.add_argument("--idle", type=float, default=60, help="seconds after which a silent client is let go")
    arguments = parser.parse_args()

    def on_connect(stream):
        stream.on_data = echo
        stream.on_drain = Stream.resume_reading
        stream.on_close = on_close
        stream.idle_timeout = arguments.idle
        # Without an on_eof a stream is closed when the client has said that it sends no more, after what is queued.

    with Loop() as loop:
        listener = loop.listen((arguments.host, arguments.port), on_connect)
        print(f"listening on {arguments.host}:{listener.sockname[1]}", flush=True)
        if arguments.path:
            loop.listen(arguments.path, on_connect)
            print(f"listening on {arguments.path}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            loop.run()


if __name__ == "__main__":
    main()
