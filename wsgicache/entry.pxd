cimport cython


@cython.final
@cython.freelist(8)
cdef class Entry:
    cdef readonly object _fresh_until, body, born, fields, key, since, tag, terms, values

    cpdef size(self)
    cpdef ttl(self, now)
