# arguments.pxd: conversion of Python arguments.

from libc.stdint cimport int64_t

cdef int64_t seconds_to_ns(object value, str name) except -1
cdef int64_t integer_within(object value, str name, int64_t low, int64_t high) except? -1
cdef int callable_argument(object value, str name) except -1
cdef bint flag_argument(object value, str name) except -1
cdef int fd_argument(object value) except -1
