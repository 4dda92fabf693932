cimport cython


@cython.final
@cython.freelist(8)
cdef class Facts:
    cdef public object cookie, forwarded, get, host, method, path, query, raw, scheme, unusual
    cdef public bint conditional, credentials, has_body

    cdef _read_unusual(self, environ)
