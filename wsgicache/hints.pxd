cimport cython


@cython.freelist(8)
cdef class Hints:
    cdef readonly object said
