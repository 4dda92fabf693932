cpdef bint holds_token(body, coding) except -1
