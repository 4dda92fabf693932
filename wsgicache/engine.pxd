from .clock cimport Clock
from .collapse cimport Collapse, Flight, MissMarkers
from .entry cimport Entry
from .facts cimport Facts
from .follow cimport Follower
from .found cimport Found
from .observe cimport Observer
from .policy cimport Admission
from .stores.sieve cimport Slot


cdef class Engine:
    cdef dict __dict__
    cdef object __weakref__
    cdef public Clock clock
    cdef public Collapse collapse
    cdef public MissMarkers markers
    cdef public Observer observer
    cdef public object _arming, _listens_at, _part_of, _told, confirm, consumed, counts, followers, forms
    cdef public object leases, owed, peek, plans, records, refresher, rules, rules_known_by, settings
    cdef public object shared, spool, stamp, store, switches, uniform

    cdef _get(self, keys, Found found)
