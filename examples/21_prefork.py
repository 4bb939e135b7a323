"""A pre-forked HTTP server: several processes on one port, which can all be replaced without dropping a request.

    pip install h11
    python examples/21_prefork.py --port 8080 --workers 2
    curl http://127.0.0.1:8080/                      # in another terminal; /slow takes half a second
    kill -HUP PID                                    # PID is in the first line of output: new workers take over
    kill -TERM PID                                   # or Ctrl-C: finish what has begun, then end

Port 0 takes any free port; the first line of output says which.

Each worker has a listening socket of its own, all bound to one port by SO_REUSEPORT, among which the kernel spreads the
connections: no crowd is woken for one client. But a connection belongs to the socket that it came to, and when the last
copy of that is closed the kernel resets all that waits in its queue. So it is the master that makes the sockets and keeps
them, and a worker is given one as an fd. Whoever ends, its queue stays, and is served by the next one. When a worker is
replaced the new one accepts first; then the old one accepts no more, serves what it has accepted, and lets each client go
with the answer to its next request. When all is to end there is no next one: the queues are emptied first.

Workers are started by fork and exec: a loop does not survive a fork, and new workers run what the file holds by then.
"""

import argparse
import contextlib
import http
import os
import signal
import socket
import subprocess
import sys

import h11

from linux_event import Loop

# Seconds after which a client that sends no request is let go.
IDLE = 60
# Seconds before a worker that has ended by itself is replaced.
PAUSE = 0.5


# -- A worker ----------------------------------------------------------------------------------------------------------


class Server:
    """What a worker does: it serves HTTP until it is told to stop."""

    def __init__(self, loop, fd, grace):
        self.loop = loop
        self.fd = fd
        self.grace = grace
        self.is_stopping = False
        self.clients = set()
        self.listener = loop.listen(fd, lambda stream: Client(self, stream))
        self.listener.on_close = self.on_close
        loop.signal("TERM", lambda watcher, signum: self.stop(is_replaced=True), ref=False)
        # The other end of stdin is with the master alone: when it stops, or has gone, this is the end of the file.
        loop.io(0, "r", self.on_master_gone, ref=False)

    def on_close(self, listener, error):
        # A socket that was given is not closed by the listener. Where the master has closed it, too, clients are refused now.
        os.close(self.fd)
        if error is not None:
            raise error

    def on_master_gone(self, watcher, events):
        watcher.destroy()
        self.stop(is_replaced=False)

    def stop(self, is_replaced):
        """Accept no more, and go on until the clients have their answers. Then nothing is left, and run() returns."""
        if self.is_stopping:
            return
        self.is_stopping = True
        # Unlike close(), which would close connections that were accepted in this moment. Those in the queue of the socket are
        # for the worker that replaces this one. If there is none they are for this one, and nobody else is let in.
        self.listener.drain(take_queue=not is_replaced)
        for client in self.clients:
            client.limit_idling()


class Client:
    """One connection."""

    def __init__(self, server, stream):
        self.server = server
        self.stream = stream
        self.http = h11.Connection(h11.SERVER)
        self.is_busy = False
        stream.on_data = self.on_data
        stream.on_eof = self.on_eof
        stream.on_close = self.on_close
        server.clients.add(self)
        self.limit_idling()

    def limit_idling(self):
        """Say how long to wait for the next request. It may be on its way already, so nobody is cut off at once."""
        if not self.is_busy:
            self.stream.idle_timeout = self.server.grace if self.server.is_stopping else IDLE

    def on_data(self, stream, data):
        self.http.receive_data(data)
        self.advance()

    def on_eof(self, stream):
        self.http.receive_data(b"")
        self.advance()

    def on_close(self, stream, error):
        self.server.clients.discard(self)

    def advance(self):
        while not self.stream.is_closing() and not self.is_busy:
            if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                self.http.start_next_cycle()
            elif self.http.our_state is h11.MUST_CLOSE:
                # The end of what we send; what the client sends still is dropped until it has seen that, and closes.
                self.stream.write_eof()
                self.stream.on_data = lambda stream, data: None
                self.stream.on_eof = lambda stream: stream.close()
                return
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                    self.stream.abort()
                else:
                    self.respond(error.error_status_hint, f"{error}\n", ("Connection", "close"))
                continue
            if isinstance(event, h11.Request):
                self.answer(event)
            elif isinstance(event, h11.ConnectionClosed):
                self.stream.close()
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                return

    def answer(self, request):
        if request.method != b"GET":
            self.respond(405, "GET only\n", ("Allow", "GET"))
        elif request.target == b"/":
            self.respond(200, f"process {os.getpid()}\n")
        elif request.target == b"/slow":
            # Meanwhile others are served.
            self.is_busy = True
            self.stream.idle_timeout = None
            self.server.loop.timer(0.5, self.on_slow)
        else:
            self.respond(404, "not found\n")

    def on_slow(self, timer):
        self.is_busy = False
        if not self.stream.is_closing():
            self.limit_idling()
            self.respond(200, f"process {os.getpid()}, after a while\n")
            self.advance()

    def respond(self, status, text, *headers):
        fixed = [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))]
        if self.server.is_stopping and not headers:
            headers = (("Connection", "close"),)
        reason = http.HTTPStatus(status).phrase
        head = self.http.send(h11.Response(status_code=status, reason=reason, headers=[*fixed, *headers]))
        self.stream.write(head + self.http.send(h11.Data(data=text.encode())))
        self.http.send(h11.EndOfMessage())


def work(fd, grace):
    with Loop() as loop:
        Server(loop, fd, grace)
        os.write(1, b"ready\n")
        loop.run()


# -- The master --------------------------------------------------------------------------------------------------------


class Worker:
    """A process that serves one of the sockets."""

    def __init__(self, master, slot):
        self.master = master
        self.slot = slot
        fd = slot.socket.fileno()
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--worker", str(fd), "--grace", str(master.grace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=[fd],
            # Ctrl-C in the terminal is for the master, which tells the others.
            process_group=0,
        )
        master.loop.io(self.process.stdout, "r", self.on_output)
        master.loop.child(self.process, self.on_end)

    def on_output(self, watcher, events):
        """It is ready, or has ended before it was."""
        data = self.process.stdout.read(100)
        watcher.destroy()
        self.process.stdout.close()
        if data:
            self.slot.on_ready(self)

    def on_end(self, watcher, pid, returncode):
        watcher.destroy()
        self.process.stdin.close()
        self.slot.on_end(self, returncode)

    def stop(self):
        """Nobody replaces it. It may be starting still: it sees that when it is ready."""
        self.process.stdin.close()

    def send(self, signum):
        # Popen.send_signal() would look whether it has ended, which is for the watcher to do.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)


class Slot:
    """A listening socket, and who serves it: `worker`, and while that is being replaced also `starting`, and `old`."""

    def __init__(self, master, number, listener):
        self.master = master
        self.name = f"worker {number}"
        self.socket = listener
        self.worker = None
        self.starting = None
        self.starts_again = False
        self.old = set()
        self.start()

    def start(self):
        """Start a worker. When it is ready it replaces the one that is there."""
        if self.master.is_stopping:
            return
        if self.starting is None:
            self.starts_again = False
            self.starting = Worker(self.master, self)
        else:
            self.starts_again = True  # it may have read what has changed since

    def on_ready(self, worker):
        self.starting = None
        print(f"{self.name}: process {worker.process.pid} accepts", flush=True)
        if self.worker is not None:
            self.old.add(self.worker)
            self.worker.send(signal.SIGTERM)
        self.worker = worker
        if self.starts_again:
            self.start()

    def on_end(self, worker, returncode):
        print(f"{self.name}: process {worker.process.pid} has ended with status {returncode}", flush=True)
        if worker in self.old:
            self.old.remove(worker)
            return
        if worker is self.starting:
            self.starting = None
        else:
            self.worker = None
        # A worker that does not come up while another one is serving replaces nobody: that one goes on.
        if self.worker is None and not self.master.is_stopping:
            self.master.loop.timer(PAUSE, self.on_pause_over, ref=False)

    def on_pause_over(self, timer):
        if self.worker is None:  # SIGHUP may have come in between.
            self.start()

    def workers(self):
        return {*self.old, self.worker, self.starting} - {None}


class Master:
    def __init__(self, loop, listeners, grace):
        self.loop = loop
        self.grace = grace
        self.is_stopping = False
        # Signals do not keep the loop going: when the last worker has ended, and none is to be started, run() returns.
        loop.signal("HUP", self.on_restart, ref=False)
        for name in ("TERM", "INT"):
            loop.signal(name, self.on_stop, ref=False)
        self.killer = loop.timer(grace + 5, self.on_grace_over, ref=False, start=False)
        self.keeper = loop.wakeup(lambda watcher: None)  # Until then there is always something that may happen.
        self.slots = [Slot(self, number, listener) for number, listener in enumerate(listeners, 1)]

    def on_restart(self, watcher, signum):
        print("SIGHUP: replacing the workers", flush=True)
        for slot in self.slots:
            slot.start()

    def on_stop(self, watcher, signum):
        if self.is_stopping:
            return
        print(f"{signal.Signals(signum).name}: stopping", flush=True)
        self.is_stopping = True
        self.keeper.destroy()
        for slot in self.slots:
            # The workers have copies of it: new clients are refused as soon as these are closed, too.
            slot.socket.close()
            for worker in slot.workers():
                worker.stop()
        self.killer.start()

    def on_grace_over(self, timer):
        print("killing what did not end in time", flush=True)
        for slot in self.slots:
            for worker in slot.workers():
                worker.send(signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description="Serve HTTP with several processes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--grace", type=float, default=10, help="seconds that idle clients get when their worker ends")
    parser.add_argument("--worker", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments.worker, arguments.grace)
        return
    port = arguments.port
    with contextlib.ExitStack() as stack:
        listeners = []
        for _ in range(arguments.workers):
            listener = socket.create_server((arguments.host, port), backlog=1024, reuse_port=True)
            listeners.append(stack.enter_context(listener))
            port = listener.getsockname()[1]
        loop = stack.enter_context(Loop())
        Master(loop, listeners, arguments.grace)
        print(f"listening on http://{arguments.host}:{port}/, process {os.getpid()}", flush=True)
        loop.run()
    print("all workers have ended", flush=True)


if __name__ == "__main__":
    main()
