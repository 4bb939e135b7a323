# registered.pxd: buffers that are registered.

from linux_event.raw.request cimport Request

# Where in the registered buffer, of which `length` bytes are to be used; the request keeps it.
cdef char *fixed_buffer(Request request, object index, object start, Py_ssize_t length) except NULL
