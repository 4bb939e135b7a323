"""The part of _fuzz that watches paths, and changes what is there."""

import contextlib
import os
import tempfile


class PathSteps:
    """A folder in which everything may go and come back, itself too."""

    def __init__(self):
        self.above = tempfile.TemporaryDirectory()
        self.folder = self.above.name + "/folder"

    def path_arguments(self):
        events = (["create"], "all", ("modify", "moved_to"), "open", [], ["crate"], ["open", 1], {"attrib"})
        places = [self.folder + name for name in ("", "/a", "/a/b")]
        return [self.pick(*places, os.fsencode(self.folder), "/proc/self", "/nowhere", "", "\0"), self.pick(*events)]

    def path_options(self):
        names = [name for name in ("recursive", "follow_symlinks") if self.chance(0.3)]
        return {name: self.pick(True, False) for name in names}

    def step_paths(self):
        place, other = (self.folder + self.random.choice(["", "2", "/a", "/a/b", "/a/b/c", "/d"]) for _ in range(2))
        make = self.random.choice([os.makedirs, os.mkfifo])
        change = self.random.choice([os.rmdir, os.utime, os.unlink])
        link = self.random.choice([os.rename, os.symlink])
        with contextlib.suppress(OSError):
            self.random.choice([lambda: make(place), lambda: change(place), lambda: link(place, other)])()

    def end_paths(self):
        self.above.cleanup()
