"""Speak TLS in front of a server that does not: decrypted, what clients say goes to another port, and the answers back.

    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem
    python examples/19_tls_terminator.py 127.0.0.1:8443 127.0.0.1:80 cert.pem key.pem
    openssl s_client -connect 127.0.0.1:8443

Port 0 takes any free port; the first line of output says which. Ctrl-C ends it.
"""

import argparse
import ssl
import traceback

from linux_event import Loop

# Seconds after which a connection without traffic is given up, and one that does not come about.
IDLE = 300
CONNECT = 10


def join(source, target):
    """What comes from one goes to the other, no faster than that takes it."""

    def on_data(stream, data):
        if not target.write(data):
            stream.pause_reading()

    def on_drain(stream):
        source.resume_reading()

    def on_eof(stream):
        source.data = "ended"
        target.write_eof()
        if target.data == "ended":  # both have said all, and what is queued is still sent
            source.close()
            target.close()

    def on_close(stream, error):
        if error is None:
            target.close()
        else:
            target.abort()

    source.on_data, source.on_eof, source.on_close = on_data, on_eof, on_close
    target.on_drain = on_drain


class Terminator:
    def __init__(self, loop, address, backend, context):
        self.loop, self.backend = loop, backend
        self.listener = loop.listen(address, self.on_connect, tls=context)
        loop.on_error = self.on_error

    def on_connect(self, client):
        """The handshake is done: connect to the server. The client is not read from before `on_data` is assigned."""
        client.idle_timeout = IDLE

        def on_connected(server, error):
            if error is not None:
                print(f"cannot connect: {error}", flush=True)
                client.abort()
            elif client.is_closing():  # it has gone meanwhile
                server.close()
            else:
                server.idle_timeout = IDLE
                join(client, server)
                join(server, client)

        self.loop.connect_stream(self.backend, on_connected, timeout=CONNECT)

    def on_error(self, source, error):
        """Handshakes that fail are told with their listener, and no surprise: anybody may send garbage."""
        if source is self.listener:
            print("refused:", error, *getattr(error, "__notes__", ()), flush=True)
        else:
            traceback.print_exception(error)


def endpoint(text):
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("listen", type=endpoint, help="host:port")
    parser.add_argument("backend", type=endpoint, help="host:port")
    parser.add_argument("certificate", help="a file in PEM format, with the certificates of the authorities between")
    parser.add_argument("key", help="a file in PEM format")
    options = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)

    with Loop() as loop:
        terminator = Terminator(loop, options.listen, options.backend, context)
        print("listening on {}:{}".format(*terminator.listener.sockname), flush=True)
        loop.signal("INT", lambda watcher, signum: loop.stop())
        loop.run()


if __name__ == "__main__":
    main()
