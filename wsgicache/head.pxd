cimport cython


@cython.final
@cython.freelist(8)
cdef class Head:
    cdef public object code, fields, headers, length, status
    cdef public bint sound
