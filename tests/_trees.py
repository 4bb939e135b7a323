"""What the tests of path watchers share: events as they come, the set of paths that they tell of, and the tree as it is."""

import os

from _support import BOUND, run_until


class Seen(list):
    """A callback that keeps the events."""

    def __call__(self, watcher, event):
        self.append(event)

    def take(self, *names):
        """What has been told since the last call: (names, path) each, of those that have one of `names`, if given."""
        found = [("|".join(sorted(event.names)), event.path) for event in self]
        self.clear()
        return [item for item in found if not names or set(item[0].split("|")) & set(names)]


def settle(loop, watched, mark):
    """Run until everything that has been done below `watched` so far has been told, and is not told itself."""
    told = []
    with_mark = loop.watch(mark, "attrib", lambda watcher, event: told.append(event))
    os.utime(mark)
    run_until(loop, lambda: told, BOUND)
    loop.run_once(0)
    with_mark.destroy()


class Told:
    """Called, it does something below `watched` and returns what has been told of it: (names, path) each, of those that have one
    of `names`, if given. Of the paths the first characters, so many as `start` says, are left out."""

    def __init__(self, loop, watched, start=0):
        self.loop, self.watched, self.start = loop, watched, start
        self.mark = watched + ".mark"
        touch(self.mark)
        self.seen = Seen()

    def __call__(self, action=lambda: None, *names):
        action()
        settle(self.loop, self.watched, self.mark)
        return [(kind, path[self.start :]) for kind, path in self.seen.take(*names)]


def made_folder(parent, name):
    """The path, a str, of a new folder."""
    path = parent / name
    path.mkdir()
    return str(path)


def touch(*paths):
    """Create files, or open them for writing and close them."""
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def write(path, data=b"x"):
    with open(path, "wb") as file:
        file.write(data)


class Model:
    """The entries of a tree, as far as events tell."""

    def __init__(self, root, recursive=True):
        self.root, self.paths, self.moving, self.events = root, set(), {}, []

    def read(self):
        self.paths = tree_of(self.root)
        return self

    def __call__(self, watcher, event):
        self.events.append(event)
        path, names = event.path, event.names
        if path == self.root:
            if "ignored" in names:
                self.paths.clear()
            return
        if "create" in names:
            self.paths.add(path)
        elif "moved_to" in names:
            self.forget(path)
            self.paths.add(path)
            below = self.moving.pop(event.cookie, ())
            self.paths |= {path + name for name in below}
        elif names & {"delete", "moved_from"}:
            below = self.forget(path)
            if "moved_from" in names:
                self.moving[event.cookie] = below

    def forget(self, path):
        below = {other for other in self.paths if other.startswith(path + "/")}
        self.paths -= below | {path}
        return {other[len(path) :] for other in below}


def tree_of(root):
    """All paths below a directory, links not followed."""
    found = set()
    for folder, folders, files in os.walk(root):
        found.update(os.path.join(folder, name) for name in folders + files)
    return found
