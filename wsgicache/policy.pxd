cimport cython

from .entry cimport Entry
from .facts cimport Facts
from .key cimport base_key


@cython.final
@cython.freelist(8)
cdef class Admission:
    cdef public Facts facts
    cdef public object cookies, host, key, personal, plan, reason, rules, seen_query, stamp, unstorable
    cdef public bint lost_file


cdef _refuse(Facts facts, plan, host)
cdef _key(Facts facts, Admission admission)
