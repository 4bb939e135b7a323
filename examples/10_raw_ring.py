"""Checksums of files with nothing but a ring: requests of the kernel under its own names, without a loop.

    python examples/10_raw_ring.py /usr/include/*.h
    python examples/10_raw_ring.py -j 4 *.iso

Prints the CRC-32, the size and the name of each file, in the order in which they are done. A worker has one place in the
ring's table of direct descriptors and one registered buffer. It goes from file to file with one chain of requests: close the
last one, open the next one, read its beginning. What is open costs no file descriptor, and no buffer is ever mapped twice.
"""

import argparse
import os
import sys
import zlib

from linux_event import Ring

# Bytes that are read at a time.
SIZE = 256 * 1024


class Worker:
    """Reads file after file at the place `slot`, into the registered buffer of the same number."""

    def __init__(self, job, slot):
        self.job = job
        self.ring = job.ring
        self.slot = slot
        self.buffer = memoryview(job.buffers[slot])
        self.is_open = False

    def next_file(self):
        """Close what is open, open the next file and read its beginning: one chain, which is submitted as a whole."""
        if self.is_open:
            # A hard link: the next request begins whatever comes of this one.
            self.ring.close(self.slot, flags=Ring.FIXED_FILE | Ring.IO_HARDLINK)
            self.is_open = False
        self.path = next(self.job.paths, None)
        if self.path is None:
            self.ring.nop()  # so that the chain has an end
            return
        self.sum = self.offset = 0
        self.ring.openat(None, self.path, os.O_RDONLY, 0, self.on_open, file_index=self.slot, flags=Ring.IO_LINK)
        self.read()

    def on_open(self, res, flags):
        self.is_open = res >= 0
        if res < 0:
            self.job.failed(self.path, res)

    def read(self):
        self.ring.read_fixed(self.slot, self.slot, SIZE, self.offset, self.on_read, flags=Ring.FIXED_FILE)

    def on_read(self, res, flags):
        if not self.is_open:
            self.next_file()  # the link has ended with the failure that on_open was told of
        elif res < 0:
            self.job.failed(self.path, res)
            self.next_file()
        elif res > 0:
            self.sum = zlib.crc32(self.buffer[:res], self.sum)
            self.offset += res
            self.read()
        else:
            print(f"{self.sum:08x} {self.offset:>12} {self.path}")
            self.next_file()


class Job:
    def __init__(self, ring, paths, workers):
        self.ring = ring
        self.paths = iter(paths)
        self.status = 0
        self.buffers = [bytearray(SIZE) for _ in range(workers)]
        ring.register_buffers(self.buffers)
        ring.register_files(workers)
        for slot in range(workers):
            Worker(self, slot).next_file()

    def failed(self, path, res):
        print(f"{path}: {os.strerror(-res)}", file=sys.stderr)
        self.status = 1

    def run(self):
        # The whole of an event loop: hand over, wait for at least one result, call back.
        while self.ring.submit_and_wait():
            self.ring.reap()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", help="files to read")
    parser.add_argument("-j", "--jobs", type=int, default=16, help="files to read at the same time")
    arguments = parser.parse_args()
    with Ring(4 * arguments.jobs) as ring:
        # From here on the kernel does nothing else for this ring, whatever a bug would ask of it.
        ring.restrict("openat", "read_fixed", "close", "nop", registrations=True)
        job = Job(ring, arguments.paths, arguments.jobs)
        job.run()
        return job.status


if __name__ == "__main__":
    sys.exit(main())
