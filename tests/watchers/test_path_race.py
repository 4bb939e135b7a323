"""PathWatcher: what is created while directories are being found, and the tree that follows from events under random changes."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest
from _support import BOUND, made_loop, run_until, scaled
from _trees import Model, Seen, made_folder, tree_of

ENTRIES = ("create", "delete", "moved_from", "moved_to")

# Makes directories as fast as it can, with something in each, and prints what it has made.
MAKER = """
import os, sys
root, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for i in range(count):
    path = root
    for name in (f"{number}-{i}", "b", "c", "d"):
        path += "/" + name
        os.mkdir(path)
        for file in "xy":
            os.close(os.open(f"{path}/{file}", os.O_CREAT | os.O_WRONLY))
"""


@pytest.fixture
def root(tmp_path):
    return made_folder(tmp_path, "root")


@pytest.mark.parametrize("events", ["create", "all"])
@pytest.mark.parametrize("pause", [0, 0.005])
def test_everything_created_is_told_once(loop, root, events, pause):
    count = scaled(150, 10)
    told = []

    def on_event(watcher, event):
        if "create" in event.names:
            told.append(event.path)
        assert "overflow" not in event.names

    watcher = loop.watch(root, events, on_event, recursive=True)
    makers = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", MAKER, root, str(number), str(count)])
        for number in range(3)
    ]
    while any(maker.poll() is None for maker in makers):
        loop.run_once(0.01)
        if pause:
            time.sleep(pause)
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    expected = tree_of(root)
    assert len(expected) == 3 * count * 12
    run_until(loop, lambda: len(told) >= len(expected))
    loop.run(0.05)
    assert len(told) == len(set(told))
    assert set(told) == expected
    watcher.destroy()


def test_threads_make_while_the_watcher_starts(root):
    """What is there when start() returns is found by whoever looks then; what comes later is told."""
    stop = threading.Event()
    made = []

    def make():
        number = 0
        while not stop.is_set():
            path = f"{root}/{number}/a/b"
            os.makedirs(path)
            made.append(path)
            number += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        for _ in range(scaled(20, 3)):
            with made_loop() as loop:
                told = Seen()
                loop.watch(root, "create", told, recursive=True)
                there = tree_of(root)
                target = len(made) + 20
                run_until(loop, lambda target=target: len(made) > target)
                now = set(made)
                run_until(loop, lambda: now <= there | {event.path for event in told})  # noqa: B023
                paths = [event.path for event in told]
                assert len(paths) == len(set(paths))
    finally:
        stop.set()
        thread.join()


# --- random ----------------------------------------------------------------------------------------------------------


class Changes:
    """Random changes of a tree and of a folder beside it."""

    def __init__(self, root, outside, seed):
        self.random = random.Random(seed)
        self.root, self.outside = root, outside
        self.names = [str(number) for number in range(4)] + ["\udcff"]

    def folder(self, top=None):
        """A directory of the tree."""
        path = top or self.root
        while self.random.random() < 0.7:
            below = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            if not below:
                break
            path = self.random.choice(below)
        return path

    def entry(self, top=None):
        return f"{self.folder(top)}/{self.random.choice(self.names)}"

    def __call__(self):
        action = self.random.choice([
            lambda: os.mkdir(self.entry()),
            lambda: os.mkdir(self.entry()),
            lambda: os.makedirs(f"{self.entry()}/{self.random.choice(self.names)}/{self.random.choice(self.names)}"),
            lambda: os.close(os.open(self.entry(), os.O_CREAT | os.O_EXCL)),
            lambda: os.close(os.open(self.entry(), os.O_CREAT | os.O_EXCL)),
            lambda: os.mkfifo(self.entry()),
            lambda: os.symlink("/tmp", self.entry()),
            lambda: os.unlink(self.entry()),
            lambda: os.rmdir(self.entry()),
            lambda: os.rename(self.entry(), self.entry()),
            lambda: os.rename(self.entry(), self.entry()),
            lambda: os.rename(self.entry(), self.entry()),
            lambda: os.rename(self.entry(), self.entry(self.outside)),
            lambda: os.rename(self.entry(self.outside), self.entry()),
            lambda: os.makedirs(f"{self.entry(self.outside)}/{self.random.choice(self.names)}"),
        ])  # fmt: skip
        try:
            action()
        except OSError:
            return False
        return True


@pytest.mark.parametrize("often", [1, 0.3, 0.02])
def test_random_changes(tmp_path, often):
    """What follows from the events is the tree; of a directory that was renamed, too."""
    for _ in range(scaled(30, 3)):
        seed = random.randrange(2**32)
        print(f"seed {seed}, often {often}")
        check_random_changes(tmp_path / str(seed), seed, often)


def check_random_changes(folder, seed, often):
    root, outside = folder / "root", folder / "outside"
    root.mkdir(parents=True)
    outside.mkdir()
    changes = Changes(str(root), str(outside), seed)
    for _ in range(20):
        changes()
    with made_loop() as loop:
        model = Model(str(root)).read()
        loop.watch(root, ENTRIES, model, recursive=True)
        made = 0
        while made < 120:
            made += changes()
            if changes.random.random() < often:
                loop.run_once(0)
        limit = time.monotonic() + BOUND / 10
        while model.paths != tree_of(root) and time.monotonic() < limit:
            loop.run_once(0.05)
        assert sorted(model.paths) == sorted(tree_of(root)), [*model.events, seed]
        # And all of it is watched.
        seen = Seen()
        loop.watch(root, "attrib", seen, recursive=True)
        for path in tree_of(root):
            if os.path.isdir(path) and not os.path.islink(path):
                os.mkfifo(path + "/new")
        expected = tree_of(root)
        run_until(loop, lambda: model.paths == expected, BOUND / 10)


@pytest.mark.parametrize("often", [1, 0.3, 0.02])
def test_random_changes_above(tmp_path, often):
    """The same while directories above are renamed, and the root is deleted while somebody works in it."""
    for _ in range(scaled(12, 3)):
        seed = random.randrange(2**32)
        print(f"seed {seed}, often {often}")
        check_random_changes_above(tmp_path / str(seed), seed, often)


def check_random_changes_above(folder, seed, often):
    up, outside = folder / "up", folder / "outside"
    middle, root = up / "middle", up / "middle" / "root"
    root.mkdir(parents=True)
    outside.mkdir()
    changes = Changes(str(root), str(outside), seed)
    above = [
        lambda: os.rename(up, folder / "other"),
        lambda: os.rename(folder / "other", up),
        lambda: os.rename(middle, up / "other"),
        lambda: os.rename(up / "other", middle),
        lambda: (held.append(os.open(root, os.O_RDONLY)), shutil.rmtree(root)),
        lambda: shutil.rmtree(up),
    ]
    held = []
    with made_loop() as loop:
        model = Model(str(root))
        loop.watch(root, ENTRIES, model, recursive=True)
        for _ in range(300):
            with contextlib.suppress(OSError):
                if changes.random.random() < 0.05:
                    changes.random.choice(above)()
                else:
                    changes()
                if changes.random.random() < 0.03:
                    os.makedirs(root, exist_ok=True)
            if changes.random.random() < often:
                loop.run_once(0)
        os.makedirs(root, exist_ok=True)
        run_until(loop, lambda: model.paths == tree_of(root), BOUND / 10)
        os.mkfifo(root / "new")
        run_until(loop, lambda: model.paths == tree_of(root), BOUND / 10)
    for fd in held:
        os.close(fd)
