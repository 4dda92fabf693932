cimport cython


@cython.final
@cython.freelist(8)
cdef class Flight:
    cdef public object born, changed, entry, handed_over_at, key, lease, owner, state, token
    cdef public int followers


cdef class Collapse:
    cdef dict __dict__
    cdef object __weakref__
    cdef public object _flights, _grace, _lock, _max_followers, _steady, _tokens


cdef class MissMarkers:
    cdef dict __dict__
    cdef public object _limit, _seconds, marks
