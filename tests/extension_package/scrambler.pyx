"""A filter of streams: what comes and goes on the socket is exclusive-or'ed, a byte at a time is handed over, and the last
word before the end is a dot."""

from linux_event.net.receiving cimport stream_reading_changed
from linux_event.net.transport cimport (
    Filter, Transport, stream_hand, stream_hand_eof, stream_send, stream_send_end, stream_wants,
)

cdef bytes scrambled(data):
    return bytes([byte ^ 0x55 for byte in bytes(data)])


cdef class Scrambler(Filter):
    cdef bytes kept
    cdef bint has_greeted
    cdef public list log

    def __init__(self):
        self.kept = b""
        self.log = []

    cdef int received(self, Transport stream, bytes data) except -1:
        self.kept += scrambled(data)
        if not self.has_greeted:  # a handshake of one byte, whatever the user says
            self.log.append(("greeted", self.kept[:1]))
            self.kept = self.kept[1:]
            self.has_greeted = True
            stream.must_read = False
            stream_reading_changed(stream)
        return self.resumed(stream)

    cdef int resumed(self, Transport stream) except -1:
        while self.kept and stream_wants(stream):
            first, self.kept = self.kept[:1], self.kept[1:]
            stream_hand(stream, first)
        return 0

    cdef int ended(self, Transport stream) except -1:
        self.log.append("ended")
        return stream_hand_eof(stream)

    cdef bint write(self, Transport stream, object data) except -1:
        return stream_send(stream, scrambled(data))

    cdef int write_end(self, Transport stream) except -1:
        self.log.append("write_end")
        return stream_send_end(stream)

    cdef bint closing(self, Transport stream) except -1:
        self.log.append("closing")
        stream_send(stream, scrambled(b"."))
        return False

    cdef int lost(self, Transport stream, object error) except -1:
        self.log.append(("lost", error))
        return 0


def scramble(Transport stream):
    """Put a filter into the stream, and return it."""
    scrambler = Scrambler()
    stream.filter = scrambler
    stream.must_read = True
    stream_reading_changed(stream)
    return scrambler


def put_default(Transport stream):
    """Put a filter into the stream that does nothing."""
    stream.filter = Filter()
