cpdef base_key(path, query, host, scheme, extra=*)
