"""What is told of a path, and the names that the events of inotify(7) have here."""

cimport cython
from libc.errno cimport ENOSPC
from libc.stdint cimport uint32_t

import os

cdef dict MASKS = {
    "access": IN_ACCESS, "modify": IN_MODIFY, "attrib": IN_ATTRIB, "close_write": IN_CLOSE_WRITE,
    "close_nowrite": IN_CLOSE_NOWRITE, "open": IN_OPEN, "moved_from": IN_MOVED_FROM, "moved_to": IN_MOVED_TO,
    "create": IN_CREATE, "delete": IN_DELETE, "delete_self": IN_DELETE_SELF, "move_self": IN_MOVE_SELF,
}
cdef dict NAMES = {mask: name for name, mask in MASKS.items()}
NAMES.update({IN_UNMOUNT: "unmount", IN_Q_OVERFLOW: "overflow", IN_IGNORED: "ignored", IN_ISDIR: "isdir"})
MASKS["all"] = sum(MASKS.values())
cdef dict NAMES_OF_MASK = {}


cdef uint32_t mask_of(object name) except? 0:
    return MASKS.get(name, 0)


cdef frozenset names_of(uint32_t mask):
    names = NAMES_OF_MASK.get(mask)
    if names is None:
        names = frozenset([name for bit, name in NAMES.items() if mask & <uint32_t>bit])
        NAMES_OF_MASK[mask] = names
    return names


@cython.final
cdef class PathEvent:
    """What has happened to a path: ``path``, ``names``, ``cookie``. Made by ``PathWatcher``."""

    def __init__(self, *args, **kwargs):
        raise TypeError("PathEvent cannot be created: a PathWatcher hands them out")

    def __repr__(self):
        cookie = f" cookie={self.cookie}" if self.cookie else ""
        return f"<PathEvent {'|'.join(sorted(self.names))} {self.path!r}{cookie}>"


cdef object explained(int error, object path):
    """The OSError, which says more where the kernel's words would mislead."""
    text = os.strerror(error)
    if error == ENOSPC:
        text = "no inotify watch is left for this user (see the sysctl fs.inotify.max_user_watches)"
    return OSError(error, text, path)


cdef bytes join(bytes folder, bytes name):
    return folder + name if folder.endswith(b"/") else folder + b"/" + name


cdef bint is_folder_entry(object entry, bint follows):
    cdef bint is_folder = False
    try:
        is_folder = entry.is_dir(follow_symlinks=follows)
    except OSError:
        pass
    return is_folder


cdef list entries_of(bytes folder, bint follows):
    cdef list found = []
    cdef bint is_real
    with os.scandir(folder) as entries:
        for entry in entries:
            is_real = is_folder_entry(entry, False)
            found.append((entry.name, is_real, is_real or (follows and is_folder_entry(entry, True))))
    return found
