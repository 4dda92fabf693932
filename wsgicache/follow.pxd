from .entry cimport Entry
from .journal cimport PurgeIndex


cdef class Follower:
    cdef dict __dict__
    cdef object __weakref__
    cdef public PurgeIndex _index
    cdef public object _ask, _followed, _lock, _meta_changed, _stamp, confirm, peek, shared, store, trust
