# paths.pxd: what copies ask.

# Whether the kernel has IORING_OP_FTRUNCATE; asked once.
cdef bint kernel_truncates() except -1
