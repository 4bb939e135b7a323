"""The part of _fuzz that starts and cancels operations.

Every operation that was started is called back exactly once, and leaves neither an fd nor a buffer that is held.
"""

import contextlib
import os

from linux_event import Operation
from linux_event.cancellation import CancelledError, InvalidStateError


class Record:
    """What is known of one operation: the done callback counts its calls."""

    def __init__(self, program, buffer, fd):
        self.program, self.buffer, self.fd = program, buffer, fd
        self.identity = None if fd is None else os.fstat(fd)
        self.operation, self.calls = None, 0

    def __call__(self, operation):
        self.calls += 1
        if operation is not self.operation or self.calls > 1:
            self.program.swallowed.append(f"{operation!r} was called back {self.calls} times")
        if isinstance(self.buffer, bytearray):
            self.program.free.append(self.buffer)
        if self.fd is not None:
            self.close()
        elif repr(operation).startswith("<Operation open ") and not operation.cancelled() and not operation.exception():
            os.close(operation.result())

    def close(self):
        """Close the fd that the operation was to close, unless it has done so, whatever it says."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self.fd), self.identity):
                os.close(self.fd)


class OperationSteps:
    """Steps and effects of a Program."""

    def __init__(self):
        super().__init__()
        self.records, self.free = [], []
        self.started = 0

    def operation_arguments(self, name):
        """The positional arguments, the buffer that is held, the fd that is to be closed."""
        offset = self.pick(-1, -1, 0, 5, 2**62, -2)
        if name == "read":
            return [self.fd(), self.pick(0, 1, 10, 70000, -1, 2**31), offset], None, None
        if name == "readinto":
            buffer = self.pick(bytearray(10), bytearray(), memoryview(bytearray(100)), b"x")
            return [self.fd(), buffer, offset], buffer, None
        if name == "write":
            data = self.pick(bytearray(10), b"x", b"", bytearray(200_000), memoryview(b"abcdef")[::2])
            return [self.pick(*self.fds), data, offset], data, None
        if name == "open":
            path = self.pick("/dev/null", b"/", "/nonexistent/file", "/dev/null/x")
            return [path, self.pick(0, os.O_RDWR, os.O_DIRECTORY, -1)], None, None
        if name == "close":
            fd = os.memfd_create("fuzz")
            return [fd], None, fd
        if name == "fallocate":
            return [self.pick(*self.fds), self.pick(0, 1, 3, -1), self.pick(0, 2**62), self.pick(1, 2**62)], None, None
        return [self.fd()], None, None

    def operation_keywords(self, name):
        keywords = {}
        for keyword in self.random.choice(
            [(), ("callback",), ("on_success",), ("on_error",), ("on_success", "on_error")]
        ):
            keywords[keyword] = self.callback()
        if self.chance(0.05):
            keywords["on_error"] = self.callback()
        if self.chance(0.3):
            keywords["timeout"] = self.seconds()
        if name == "fsync" and self.chance(0.5):
            keywords["datasync"] = self.pick(True, False)
        return keywords

    def start_operation(self, loop):
        name = self.random.choice(["read", "read", "readinto", "write", "open", "close", "fsync", "fallocate"])
        arguments, buffer, fd = self.operation_arguments(name)
        keywords = self.operation_keywords(name)
        record = Record(self, buffer, fd)
        operation = None
        try:
            with self.contract(name, arguments, keywords), contextlib.suppress(BufferError, MemoryError):
                operation = getattr(loop, name)(*arguments, **keywords)
        finally:
            if operation is not None:
                self.started += 1
                record.operation = operation
                self.records.append(record)
                operation.add_done_callback(record)
            elif fd is not None:
                record.close()

    def step_operation(self):
        self.start_operation(self.loop())

    def step_operations(self):
        loop = self.loop()
        for _ in range(self.random.randrange(20)):
            self.start_operation(loop)

    def step_chain(self):
        loop = self.loop()
        with self.contract("link", [], {}), loop.link(hard=self.pick(True, False)):
            for _ in range(self.random.randrange(12)):
                self.start_operation(loop)
                if self.chance(0.05):
                    self.step()
                if self.chance(0.05):
                    self.random.choice(self.effects)()

    def step_cancel(self):
        if self.records:
            with self.contract("cancel", [], {}):
                self.random.choice(self.records).operation.cancel()

    def step_ask(self):
        """The methods that change nothing."""
        operation = self.random.choice(self.records).operation if self.records else Operation.__new__(Operation)
        method = self.random.choice([operation.result, operation.exception, operation.done, operation.cancelled])
        with contextlib.suppress(CancelledError, InvalidStateError), self.contract("ask", [], {}):
            method()
        with self.contract("add_done_callback", [], {}):
            operation.add_done_callback(self.callback())
        with self.contract("repr", [], {}):
            repr(operation)

    def effect_cancel(self):
        for record in self.random.sample(self.records, min(5, len(self.records))):
            with self.contract("cancel", [], {}):
                record.operation.cancel()

    def check_operations(self):
        """Those that were not called back are those that their loops have in flight."""
        for loop in self.loops:
            waiting = [record for record in self.records if record.operation.loop is loop and not record.calls]
            assert loop.statistics().operations_in_flight == len(waiting), (loop.statistics(), waiting)
            assert not (waiting and loop.is_closed())
        for buffer in self.free:
            buffer.append(0)  # BufferError: somebody has it still
        self.free.clear()
        self.records = [record for record in self.records if not record.calls]

    def end_operations(self):
        for loop in {id(record.operation.loop): record.operation.loop for record in self.records}.values():
            # A loop that was dropped: its operations call back now, and what they call may be hostile.
            with self.contract("close", [], {}):
                loop.close()
            loop.close()
        self.check_operations()
        assert not self.records, self.records
