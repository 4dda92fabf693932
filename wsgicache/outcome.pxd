cimport cython


@cython.final
@cython.freelist(8)
cdef class Outcome:
    cdef public object detail, forward_status, key, method, path, query, reason, rule, seconds, settled
    cdef public object size, status, ttl
    cdef public bint collapsed
