"""What a watcher of a path watches: a file, a directory, or a tree that follows all changes of its directories.

A directory that appears is first watched, then read. What is found in it is told as created, and so are all directories below
it. Records that were made up to the end of the reading may speak of the same: the names that the user has heard of are kept
until the stream of records has come to that place, and nothing is told twice.
"""

from libc.errno cimport ELOOP, ENOENT, ENOSPC, ENOTDIR
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from linux_event.core cimport LE_LANE_COMPLETIONS, le_watcher_collect
from linux_event.watchers.above cimport unwatch_above, watch_above
from linux_event.watchers.happening cimport (
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_DONT_FOLLOW, IN_IGNORED, IN_ISDIR,
    IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_ONLYDIR, IN_OPEN, IN_Q_OVERFLOW, IN_UNMOUNT, PathEvent, explained,
    entries_of, join, names_of,
)
from linux_event.watchers.inotify cimport (
    InotifyHub, Mark, Node, Tree, hub_end, hub_join, hub_leave, hub_settle_later, hush, unwatch, watch, watch_again, watch_less,
)

import os
from collections import deque

cdef uint32_t SELF = IN_DELETE_SELF | IN_MOVE_SELF
cdef uint32_t ENTRIES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
cdef uint32_t OWN_DOING = IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE  # what reading a directory makes
cdef uint32_t ALWAYS = IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED
cdef enum:
    DOUBT_LINKS = 1  # it may have lost its name
    DOUBT_PLACE = 2  # it has got another one
    SEEK_TRIES = 100


cdef class PathNode(Node):
    """One watched inode of a tree."""

    cdef int take(self, uint32_t mask, uint32_t cookie, bytes name, uint64_t position) except -1:
        cdef PathTree tree = self.tree
        if tree is None or tree.head == NULL:
            return 0
        if self.role == NODE_GUARD:
            if name == self.name or (not name and mask & (SELF | IN_IGNORED | IN_UNMOUNT | IN_ATTRIB)):
                seek(tree)
        elif name:
            take_entry(tree, self, mask, cookie, name, position)
        elif self.role == NODE_ROOT:
            take_root(tree, self, mask, cookie)
        else:
            take_branch(tree, self, mask, cookie)
        return 0


cdef class PathTree(Tree):
    """What one watcher watches."""

    cdef int overflow(self) except -1:
        cdef PathNode node
        tell(self, self.given, IN_Q_OVERFLOW, 0)
        for node in self.windows:
            node.known = None
        self.windows = []
        self.unsure.clear()
        for node in list(self.floating.values()):
            drop(self, node)
        if self.root is None:
            seek(self)
        elif not watch_again(self.hub, self.root, 0):
            lose(self)
        elif self.root.is_folder and self.is_recursive:
            read_again(self)
        return 0

    cdef int settle(self) except -1:
        cdef PathNode root = self.root, node
        cdef uint64_t position = self.hub.reader.position + self.hub.reader.taken
        if root is not None and root.doubts:
            doubts, root.doubts = root.doubts, 0
            if not watch_again(self.hub, root, 0):
                if doubts & DOUBT_LINKS:
                    tell(self, self.given, IN_DELETE_SELF, 0)
                lose(self)
            else:
                look_above(self, root)
        windows, self.windows = self.windows, []
        for node in windows:
            if node.known is not None and position < node.known_until:
                self.windows.append(node)
            else:
                node.known = None
        if self.windows:
            hub_settle_later(self)
        return 0

    cdef int doubt(self, bint is_gone) except -1:
        if self.root is None:
            return seek(self)
        self.root.doubts |= DOUBT_LINKS if is_gone else DOUBT_PLACE
        return hub_settle_later(self)

    cdef int tell_error(self, object error) except -1:
        if self.head != NULL:
            self.queue.append(error)
            self.hub.undelivered += 1
            le_watcher_collect(&self.hub.owner.core, self.head, LE_LANE_COMPLETIONS)
        return 0


cdef PathTree tree_new(InotifyHub hub, object given, bytes full, uint32_t mask, bint is_recursive, bint follows):
    cdef PathTree self = PathTree.__new__(PathTree)
    self.hub = hub
    self.given, self.full, self.mask, self.is_recursive, self.follows = given, full, mask, is_recursive, follows
    self.floating, self.fresh, self.windows, self.above, self.unsure, self.queue = {}, [], [], [], set(), deque()
    return self


cdef int tree_begin(PathTree self) except -1:
    cdef int error
    self.since = hub_end(self.hub)
    error = find_root(self, False)
    if error:
        raise explained(-error, self.given)
    hub_join(self.hub, self)
    return 0


cdef int tree_end(PathTree self) except -1:
    cdef InotifyHub hub = self.hub
    self.head = NULL
    hub.undelivered -= len(self.queue)
    self.queue.clear()
    hub_leave(hub, self)
    drop(self, self.root)
    drop(self, self.guard)
    unwatch_above(hub, self.above)
    for node in list(self.floating.values()):
        drop(self, node)
    self.root = self.guard = None
    self.fresh, self.windows, self.above = [], [], []
    return 0


cdef object path_of(PathNode node, bytes name):
    """The path for users of an entry of a directory."""
    if isinstance(node.told, str):
        return f"{node.told}/{os.fsdecode(name)}"
    return <bytes>node.told + b"/" + name


cdef int tell(PathTree self, object path, uint32_t mask, uint32_t cookie) except -1:
    """Queue an event, if it was asked for."""
    cdef PathEvent event
    cdef uint32_t bits = mask & (self.mask | ALWAYS)
    if bits == 0 or self.head == NULL:
        return 0
    event = PathEvent.__new__(PathEvent)
    event.path = path
    event.names = names_of(bits | (mask & IN_ISDIR))
    event.cookie = cookie
    self.queue.append(event)
    self.hub.undelivered += 1
    le_watcher_collect(&self.hub.owner.core, self.head, LE_LANE_COMPLETIONS)
    return 0


# -- Nodes -------------------------------------------------------------------------------------------------------------

cdef PathNode new_node(PathTree self, node_role role, bytes full, bytes name, object told):
    cdef PathNode node = PathNode.__new__(PathNode)
    node.wd = -1
    node.tree, node.role, node.full, node.name, node.told = self, role, full, name, told
    node.children = {}
    return node


cdef int drop(PathTree self, PathNode top) except -1:
    """Watch a node, and all below it, no more."""
    cdef PathNode node
    cdef list stack
    if top is None:
        return 0
    if top.parent is not None and top.parent.children.get(top.name) is top:
        del top.parent.children[top.name]
    stack = [top]
    while stack:
        node = stack.pop()
        stack.extend(node.children.values())
        if node.exchanged is not None:
            stack.append(node.exchanged)
            node.exchanged = None
        if node.wd >= 0:
            unwatch(self.hub, node)
        if node.cookie and self.floating.get(node.cookie) is node:
            del self.floating[node.cookie]
        node.children = {}
        node.known = node.parent = node.tree = None
    return 0


cdef int move(PathNode top, PathNode parent, bytes name) except -1:
    """Give a node another place in the tree."""
    cdef PathNode node
    cdef list stack = [top]
    top.parent, top.name = parent, name
    parent.children[name] = top
    while stack:
        node = stack.pop()
        node.full = join(node.parent.full, node.name)
        node.told = path_of(node.parent, node.name)
        stack.extend(node.children.values())
    return 0


cdef uint32_t mask_for(PathTree self, bint is_folder, bint is_quiet):
    """What the kernel is to tell of. is_quiet: not of opening and reading yet."""
    cdef uint32_t mask = self.mask | SELF
    if not is_folder:
        return mask | IN_ATTRIB
    if self.is_recursive:
        mask |= ENTRIES
    return mask & ~OWN_DOING if is_quiet else mask


cdef bint is_in_place(PathTree self, PathNode node) except -1:
    """Whether the path of a node leads to it: a directory above may have been renamed, and the record is still to come."""
    return watch_again(self.hub, node, self.hushed)


cdef PathNode enter(PathTree self, PathNode parent, bytes name):
    """Watch a directory. Returns its node if that is new, to be explored; None if it is not, or cannot be watched."""
    cdef PathNode node = new_node(self, NODE_BRANCH, join(parent.full, name), name, None)
    cdef PathNode old = parent.children.get(name), other
    cdef int error
    node.told = path_of(parent, name)
    error = watch(self.hub, node, mask_for(self, True, True) | IN_ONLYDIR | (0 if self.follows else IN_DONT_FOLLOW))
    if error == 0 and old is not None and old.wd == node.wd:
        unwatch(self.hub, node)
        return None
    # Most often it has gone, or has become another one, of which records will come.
    if error not in (0, -ENOENT, -ENOTDIR, -ELOOP):
        if error == -ENOSPC and self not in self.hub.trees:
            raise explained(-error, node.told)  # at the start
        self.tell_error(explained(-error, node.told))
        return None
    if not is_in_place(self, parent):
        unwatch(self.hub, node)  # whatever this is
        if parent.owed is None:
            parent.owed = set()
        parent.owed.add(name)
        return None
    if error:
        return None
    node.is_folder = True
    node.is_link = self.follows and os.path.islink(node.full)
    for member in list((<Mark>self.hub.marks[node.wd]).members):
        other = <PathNode>member
        if type(member) is not PathNode or other is node or other.tree is not self or other.role == NODE_GUARD:
            continue
        if node.is_link:
            unwatch(self.hub, node)  # it leads to where the tree has been
            return None
        if other.role == NODE_BRANCH and not is_mounted_twice(self, other, node):
            drop(self, other)  # it has been renamed, and the record is still to come
    drop(self, parent.children.get(name))
    node.parent = parent
    parent.children[name] = node
    return node


cdef bint is_mounted_twice(PathTree self, PathNode node, PathNode other) except -1:
    """Whether two nodes of one inode are at different places indeed, as with a directory that is mounted twice."""
    cdef bint is_same = False
    try:
        is_same = node.full != other.full and os.path.samestat(os.stat(node.full), os.stat(other.full))
    except OSError:
        pass
    return is_same and node.parent is not None and is_in_place(self, node.parent)


cdef int arrive(PathTree self, PathNode node, bint is_another) except -1:
    """Explore what enter() has returned. is_another: it is not the one that the user has heard of, who is told so."""
    if node is None:
        return 0
    if is_another:
        tell(self, node.told, IN_DELETE | IN_ISDIR, 0)
        tell(self, node.told, IN_CREATE | IN_ISDIR, 0)
    explore(self, node, True)
    return hear_all(self)


cdef int pay(PathTree self, PathNode top) except -1:
    """A directory has got its new path: do what could not be done there and below without it."""
    cdef PathNode node
    cdef list stack = [top]
    while stack and self.head != NULL:
        node = stack.pop()
        stack.extend(node.children.values())
        if node.is_unread:
            explore(self, node, True)
        owed, node.owed = node.owed, None
        for name in owed or ():
            arrive(self, enter(self, node, name), True)
    return 0


cdef int explore(PathTree self, PathNode top, bint is_told) except -1:
    """Read a directory that is watched, and watch and read all below it. is_told: what is found has just been created."""
    cdef InotifyHub hub = self.hub
    cdef PathNode node, child
    cdef list stack = [top], found
    cdef bytes name
    cdef bint is_real, is_folder
    cdef uint64_t end
    self.fresh.append(top)
    while stack and self.head != NULL:
        node = stack.pop()
        found = read_folder(self, node)
        if is_told and node.known is None:
            node.known = set()
        node.is_unread = found is None
        if node.is_unread:
            # Until then all records of it are told, and kept in mind.
            node.known_until = UINT64_MAX
            continue
        for name, is_real, is_folder in found:
            if is_told and name not in node.known:
                node.known.add(name)
                tell(self, path_of(node, name), IN_CREATE | (IN_ISDIR if is_real else 0), 0)
            if is_folder and self.is_recursive:
                child = enter(self, node, name)
                if child is not None:
                    self.fresh.append(child)
                    stack.append(child)
        if is_told or self.mask & OWN_DOING:
            end = hub_end(hub)
            if is_told:
                node.known_until = end
                self.windows.append(node)
                hub_settle_later(self)
            hush(hub, node.wd, b"", end)
            if node.parent is not None:
                hush(hub, node.parent.wd, node.name, end)
    if stack:
        drop(self, top)
    return 0


cdef list read_folder(PathTree self, PathNode node):
    """The entries of a directory, as entries_of() tells. None: it is not there."""
    cdef list found = []
    try:
        found = entries_of(node.full, self.follows)
    except OSError as error:
        if error.errno not in (ENOENT, ENOTDIR):
            self.tell_error(explained(error.errno, node.told))
    return found if is_in_place(self, node) else None


cdef int hear_all(PathTree self) except -1:
    """All is explored: from now on opening and reading is of interest, where it was asked for."""
    cdef PathNode node
    cdef Mark mark
    fresh, self.fresh = self.fresh, []
    if self.mask & OWN_DOING:
        for node in fresh:
            mark = self.hub.marks.get(node.wd)
            if mark is not None:
                mark.mask |= mask_for(self, True, False)
                watch_again(self.hub, node, 0)
    return 0


cdef int read_again(PathTree self) except -1:
    """Records were lost: watch every directory again. What is in those that are new is told as created."""
    cdef PathNode node, child
    cdef list stack = [self.root], nodes = []
    cdef bytes name
    self.hushed = OWN_DOING
    while stack:
        node = stack.pop()
        nodes.append(node)
        watch_less(self.hub, node, OWN_DOING)
        stack.extend(node.children.values())
    stack = [self.root]
    while stack and self.head != NULL:
        node = stack.pop()
        found = read_folder(self, node)
        if found is None:
            continue
        folders = {entry[0] for entry in found if entry[2]}
        for name in list(node.children):
            if name not in folders:
                drop(self, node.children.get(name))
        for name in folders:
            child = enter(self, node, name)
            if child is not None:
                tell(self, child.told, IN_CREATE | (0 if child.is_link else IN_ISDIR), 0)
                explore(self, child, True)
            elif name in node.children:
                stack.append(node.children[name])
    self.hushed = 0
    for node in nodes:
        is_in_place(self, node)
    hear_all(self)
    return 0


# -- Records -----------------------------------------------------------------------------------------------------------

cdef int take_entry(PathTree self, PathNode node, uint32_t mask, uint32_t cookie, bytes name, uint64_t position) except -1:
    """Something has happened to an entry of a watched directory."""
    cdef bint is_told = True, is_unsure
    cdef PathNode child, fresh
    if node.known is not None:
        if position >= node.known_until:
            node.known = None
        elif mask & (IN_CREATE | IN_MOVED_TO):
            is_told = name not in node.known
            node.known.add(name)
        elif mask & (IN_DELETE | IN_MOVED_FROM):
            is_told = name in node.known
            node.known.discard(name)
    if is_told:
        tell(self, path_of(node, name), mask, cookie)
    if not self.is_recursive or not mask & ENTRIES:
        return 0
    child = node.children.get(name)
    if mask & (IN_DELETE | IN_MOVED_FROM):
        if node.exchanged is not None and node.exchanged.name == name:
            child, node.exchanged = node.exchanged, None
            if mask & IN_MOVED_FROM and child.tree is self:
                child.cookie = cookie
                self.floating[cookie] = child
                return 0
            child = node.children.get(name)
        if child is None:
            if is_told and mask & IN_MOVED_FROM and mask & IN_ISDIR:
                self.unsure.add(cookie)
            return 0
        if mask & IN_DELETE or child.is_link or not is_told:
            drop(self, child)
        else:
            del node.children[name]
            child.cookie = cookie
            self.floating[cookie] = child
        return 0
    if not mask & IN_ISDIR and not self.follows:
        drop(self, child)  # a directory whose end is still to be heard of
        return 0
    if not is_told and mask & IN_MOVED_TO:
        drop(self, self.floating.get(cookie))  # what has been read is newer
    elif mask & IN_MOVED_TO and cookie in self.floating:
        take_place(self, self.floating.pop(cookie), node, name)
        hear_all(self)
        return 0
    is_unsure = is_told and mask & IN_MOVED_TO and cookie in self.unsure
    self.unsure.discard(cookie)
    fresh = enter(self, node, name)
    if fresh is None and is_told and mask & IN_MOVED_TO and child is not None and node.children.get(name) is child:
        # It was found here before its time, and records of it that are older have been passed over.
        if is_in_place(self, child):
            drop(self, child)
            fresh = enter(self, node, name)
            is_unsure = True
    return arrive(self, fresh, is_unsure)


cdef int take_place(PathTree self, PathNode child, PathNode parent, bytes name) except -1:
    """A directory of the tree has got another place in it."""
    cdef PathNode old = parent.children.get(name)
    child.cookie = 0
    if old is not None and old is not child:
        # Two that exchange their places: what was here goes to where the other has been, and the records come next.
        place, old.full = old.full, child.full
        is_exchanged = is_in_place(self, old)
        old.full = place
        if is_exchanged:
            parent.exchanged = old
            del parent.children[name]
        else:
            drop(self, old)
    move(child, parent, name)
    arrive(self, enter(self, parent, name), True)
    pay(self, child)
    return 0


cdef int take_root(PathTree self, PathNode node, uint32_t mask, uint32_t cookie) except -1:
    """Something has happened to the path itself."""
    if mask & IN_IGNORED:
        lose(self)
        return 0
    tell(self, self.given, mask, cookie)
    if mask & IN_MOVE_SELF:
        node.doubts |= DOUBT_PLACE
        hub_settle_later(self)
    elif mask & IN_ATTRIB and not node.is_folder:
        node.doubts |= DOUBT_LINKS
        hub_settle_later(self)
    return 0


cdef int take_branch(PathTree self, PathNode node, uint32_t mask, uint32_t cookie) except -1:
    """Something has happened to a directory below the path. What is not told here, the directory above tells of."""
    cdef PathNode parent = node.parent
    tell(self, node.told, mask & (SELF | IN_UNMOUNT | IN_ISDIR), cookie)
    if mask & IN_UNMOUNT:
        node.is_unmounted = True
    elif mask & IN_IGNORED:
        is_unmounted, name = node.is_unmounted, node.name
        drop(self, node)
        if is_unmounted and parent is not None:
            arrive(self, enter(self, parent, name), False)
    elif mask & IN_MOVE_SELF and node.cookie:
        drop(self, node)  # the record of its new place would have come before: it has left the tree
    return 0


# -- The path itself ---------------------------------------------------------------------------------------------------

cdef int find_root(PathTree self, bint is_told) except? -1:
    """Watch the path, and all below it. Returns 0 or a negative errno."""
    cdef PathNode node
    cdef int error
    told = self.given[:-1] if self.given.endswith("/" if isinstance(self.given, str) else b"/") else self.given
    node = new_node(self, NODE_ROOT, self.full, b"", told)
    node.is_folder = True
    error = watch(self.hub, node, mask_for(self, True, self.is_recursive) | IN_ONLYDIR)
    if error == -ENOTDIR:
        node.is_folder = False
        error = watch(self.hub, node, mask_for(self, False, False))
    if error:
        return error
    self.root = node
    look_above(self, node)
    if not is_in_place(self, node):
        self.root = None  # one of those has been renamed meanwhile
        drop(self, node)
        return -ENOENT
    if is_told:
        tell(self, self.given, IN_CREATE | (IN_ISDIR if node.is_folder else 0), 0)
    if node.is_folder and (self.is_recursive or is_told):
        explore(self, node, is_told)
        hear_all(self)
    return 0


cdef int look_above(PathTree self, PathNode node) except -1:
    """Watch the directories above, as they are now."""
    above, self.above = self.above, watch_above(self.hub, self, node.full, node.is_folder)
    return unwatch_above(self.hub, above)


cdef int lose(PathTree self) except -1:
    """The path is not any more what was watched: let go of that, and look for what is there now."""
    root, self.root = self.root, None
    drop(self, root)
    for node in list(self.floating.values()):
        drop(self, node)
    tell(self, self.given, IN_IGNORED, 0)
    seek(self)
    return 0


cdef int seek(PathTree self) except -1:
    """Watch the path if it is there, else the nearest directory above it for what leads there."""
    cdef int error, error_of_root
    cdef bytes above, below
    cdef PathNode guard
    for _ in range(SEEK_TRIES):
        guard, self.guard = self.guard, None
        drop(self, guard)
        if self.head == NULL:
            return 0
        error = error_of_root = find_root(self, True)
        if error == 0:
            return 0
        if error not in (-ENOENT, -ENOTDIR, -ELOOP):
            self.tell_error(explained(-error, self.given))
        below = self.full.rstrip(b"/") or b"/"
        while True:
            above = os.path.dirname(below)
            guard = new_node(self, NODE_GUARD, above, os.path.basename(below), None)
            error = watch(self.hub, guard, IN_CREATE | IN_MOVED_TO | IN_ATTRIB | SELF | IN_ONLYDIR)
            if error == 0:
                break
            if above == below or error == -ENOSPC:
                unwatch_above(self.hub, self.above)
                self.above = []
                self.tell_error(explained(-error, self.given))
                return 0
            below = above
        self.guard = guard
        guard.is_folder = True
        look_above(self, guard)
        # It may have come meanwhile.
        if error_of_root not in (-ENOENT, -ENOTDIR) or not os.path.exists(below):
            return 0
        if below != self.full.rstrip(b"/") and not os.path.isdir(below):
            return 0
    return 0
