"""Path watchers: what happens to files and directories, and to everything below them. See inotify.pyx and tree.pyx."""

cimport cython
from linux_event.arguments cimport flag_argument
from linux_event.core cimport (
    LE_LANE_COMPLETIONS, LE_WATCHER_ABI, le_watcher_class, le_watcher_collect, le_watcher_function,
    le_watcher_unpend,
)
from linux_event.loop cimport add_method
from linux_event.watcher cimport Watcher, decorator, watcher_begin, watcher_leave, watcher_options
from linux_event.watchers.happening cimport PathEvent, mask_of, names_of
from linux_event.watchers.inotify cimport InotifyHub, hub_go_on, hub_of
from linux_event.watchers.tree cimport PathTree, tree_begin, tree_end, tree_new

import os


@cython.final
cdef class PathWatcher(Watcher):
    """PathWatcher(loop, path, events, callback, *, recursive=False, follow_symlinks=False, data=None,
priority=0, ref=True, start=True)
--

Calls ``callback(watcher, event)`` for what happens to a file or a directory and its entries. ``loop.watch(path, ...)``.

An event has ``path`` (``path`` as given, and what is below it, a str or bytes as given), ``names`` (a frozenset) and ``cookie``
(an int: the two halves of a rename have the same; else 0). Beside what was asked for, ``names`` may have ``"isdir"``: it was a
directory; and all watchers hear of: ``"overflow"``: the queue of the kernel was full (fs.inotify.max_queued_events), and events
are lost; ``"unmount"``; ``"ignored"``: what was watched is watched no more, because it was deleted, moved or unmounted, or a
directory above was moved. The watcher stays active then and waits for the path to be there again, which is told as ``"create"``.

With ``recursive`` all directories below are watched, also those that appear later. What is found in these is told as
``"create"``: nothing is missed, and nothing told twice. A directory that is renamed within the tree goes on under its new name.
One that is moved into it is told as ``"moved_to"``, and what it has in it as ``"create"``; one that is moved out is watched no
more, which is not told for each of what is in it. After an overflow all directories are read again: those that are new are told
as ``"create"`` with all that is in them; what else has happened the user has to find out.

:param loop: the Loop.
:param path: a str, bytes or path object: a file or a directory, which has to exist when the watcher is started. A symbolic link
    is followed. A relative one starts from the current directory of the moment.
:param events: an iterable of names, or one of them: ``"access"`` (read), ``"modify"`` (written, cut), ``"attrib"`` (permissions,
    times, owner, links), ``"close_write"``, ``"close_nowrite"``, ``"open"``, ``"moved_from"``, ``"moved_to"``, ``"create"``,
    ``"delete"`` (entries of a directory), ``"delete_self"``, ``"move_self"`` (``path`` itself, or a directory that is watched
    below it), or ``"all"``.
:param callback: called with the watcher and the event.
:param recursive: True: everything below a directory.
:param follow_symlinks: True: symbolic links below ``path`` that lead to a directory are followed, if that is not in the tree.
:param data, priority, ref, start: as for ``Timer``.
:raises OSError: of the path, such as FileNotFoundError; no watch is left (ENOSPC: fs.inotify.max_user_watches), or no inotify
    instance or fd (EMFILE: fs.inotify.max_user_instances). By ``start()`` too. What cannot be watched later, or below the path
    for lack of permission, ``on_error`` of the loop hears of, and the watcher goes on.
:raises ValueError: ``events`` has an unknown name, or none; a NUL in ``path``; ``priority`` is out of range.
:raises TypeError: an argument has a wrong type.
:raises LoopClosedError, WrongThreadError: as told by their names.

Stands on inotify_add_watch(2) and IORING_OP_READ. All path watchers of a loop share one inotify instance. See inotify(7).
"""

    def __init__(self, loop, path, events, callback, *, recursive=False, follow_symlinks=False, data=None, priority=0, ref=True,
                 start=True):
        given = os.fspath(path) if isinstance(path, (str, bytes)) or hasattr(path, "__fspath__") else None
        if given is None:
            raise TypeError(f"path must be a str, bytes or a path object, not {type(path).__name__} ({path!r})")
        name = os.fsencode(given)
        if b"\0" in name:
            raise ValueError(f"path must not have a NUL in it, not {path!r}")
        mask = events_argument(events)
        is_recursive, follows = flag_argument(recursive, "recursive"), flag_argument(follow_symlinks, "follow_symlinks")
        watcher_begin(self, &path_class, loop, callback)
        self.given, self.mask, self.is_recursive, self.follows = given, mask, is_recursive, follows
        try:
            # An empty path leads nowhere.
            self.full = os.path.join(os.getcwdb(), name) if name and not name.startswith(b"/") else name
        except OSError as error:
            self.destroy()
            raise OSError(error.errno, os.strerror(error.errno), given) from None
        watcher_options(self, data, priority, ref, start)

    def __dealloc__(self):
        watcher_leave(self)

    @property
    def path(self):
        """The path as it was given: a str or bytes."""
        return self.given

    @property
    def events(self):
        """The names of the events that were asked for: a frozenset."""
        return names_of(self.mask)

    @property
    def recursive(self):
        """Whether everything below the path is watched."""
        return self.is_recursive

    @property
    def follow_symlinks(self):
        """Whether symbolic links below the path are followed."""
        return self.follows

    def describe(self):
        """What the watcher watches, for ``repr``."""
        return f"path={self.given!r}{' recursive' if self.is_recursive else ''}"


cdef object events_argument(object events):
    """The mask of names of events."""
    mask = 0
    if isinstance(events, str):
        events = (events,)
    elif isinstance(events, (bytes, bytearray)) or not hasattr(type(events), "__iter__"):
        raise TypeError(f"events must be names such as 'create', not {type(events).__name__} ({events!r})")
    for name in events:
        if not isinstance(name, str):
            raise TypeError(f"events must be names such as 'create', not {type(name).__name__} ({name!r})")
        if not mask_of(name):
            known = ', '.join(sorted(names_of(mask_of("all"))))
            raise ValueError(f"events has a name that is unknown: {name!r}; there are {known}, and all")
        mask |= mask_of(name)
    if not mask:
        raise ValueError("events must have a name in it, such as 'create'")
    return mask


cdef int path_start(void *watcher) except -1:
    cdef PathWatcher self = <PathWatcher>watcher
    cdef PathTree tree = tree_new(hub_of(self.owner), self.given, self.full, self.mask, self.is_recursive, self.follows)
    tree.head = &self.head
    try:
        tree_begin(tree)
    except BaseException:
        tree_end(tree)
        le_watcher_unpend(&self.owner.core, &self.head)
        raise
    self.tree = tree
    return 0


cdef int path_stop(void *watcher) except -1:
    cdef PathWatcher self = <PathWatcher>watcher
    cdef PathTree tree = self.tree
    self.tree = None
    tree_end(tree)
    hub_go_on(tree.hub)
    return 0


cdef int path_dispatch(void *watcher) except -1:
    cdef PathWatcher self = <PathWatcher>watcher
    cdef PathTree tree = self.tree
    cdef InotifyHub hub = tree.hub
    happened = tree.queue.popleft()
    hub.undelivered -= 1
    if tree.queue:
        le_watcher_collect(&self.owner.core, &self.head, LE_LANE_COMPLETIONS)
    hub_go_on(hub)
    if type(happened) is PathEvent:
        self.function(self, happened)
    else:
        self.owner.tell(self, happened)
    return 0


cdef le_watcher_class path_class
path_class.abi = LE_WATCHER_ABI
path_class.name = "path"
path_class.on_start = <le_watcher_function>path_start
path_class.on_stop = <le_watcher_function>path_stop
path_class.on_dispatch = <le_watcher_function>path_dispatch


# -- Factory -----------------------------------------------------------------------------------------------------------

@cython.binding(True)
def _watch(self, path, events, callback=..., *, recursive=False, follow_symlinks=False, data=None, priority=0, ref=True,
           start=True):
    """Create a ``PathWatcher``: ``callback(watcher, event)`` for what happens to a file, a directory, or a tree.

    :param path: a str, bytes or path object.
    :param events: an iterable of names, or one of them, such as ``"create"``, or ``"all"``.
    :param callback: left out, the call is a decorator. Its ``event`` has ``path``, ``names`` and ``cookie``.
    :param recursive: True: everything below a directory, also what appears later.
    :param follow_symlinks: True: also through symbolic links to directories.
    :returns: the PathWatcher; as a decorator, what takes the function and returns it.
    :raises OSError, ValueError, TypeError, LoopClosedError, WrongThreadError: as ``PathWatcher`` does, which tells of the other
        arguments.
    """
    if callback is ...:
        return decorator(PathWatcher, self, (path, events), data, priority, ref, start,
                         {"recursive": recursive, "follow_symlinks": follow_symlinks})
    return PathWatcher(self, path, events, callback, recursive=recursive, follow_symlinks=follow_symlinks, data=data,
                       priority=priority, ref=ref, start=start)


add_method("watch", _watch)
