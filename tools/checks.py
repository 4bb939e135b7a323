"""Run parts of `make check`, as many at once as there are cores: tools/checks.py MAKE PART...

Each part prints what it has to say when it has ended, in one piece. The exit status is 1 if one has failed; those that are
running then are waited for, and no other one begins.
"""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed


def run(make, part, has_failed):
    """Run one part, unless another one has failed; return its name, exit status, output and seconds."""
    if has_failed.is_set():
        return part, None, b"", 0.0
    started = time.monotonic()
    done = subprocess.run(
        [make, "--no-print-directory", part], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        has_failed.set()
    return part, done.returncode, done.stdout, time.monotonic() - started


def main(make, *parts):
    """Run the parts and return the exit status."""
    has_failed = threading.Event()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for future in as_completed([pool.submit(run, make, part, has_failed) for part in parts]):
            part, code, output, seconds = future.result()
            if code is None:
                print(f"== make {part}: not begun", flush=True)
                continue
            print(f"== make {part}", flush=True)
            sys.stdout.buffer.write(output)
            print(f"== make {part}: {'failed' if code else 'passed'} in {seconds:.0f} s", flush=True)
    return int(has_failed.is_set())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
