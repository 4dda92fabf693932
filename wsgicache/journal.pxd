cdef class PurgeIndex:
    cdef dict __dict__
    cdef public object mark
    cdef public _State _state


cdef class _Book:
    cdef public object all, groups, prefixes, urls


cdef class _State:
    cdef public _Book hard, soft
    cdef public object dropped, epoch, floor, last_seq, slots, table
