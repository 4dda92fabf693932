from .engine cimport Engine
from .outcome cimport Outcome


cpdef for_client(headers, Outcome outcome, Engine engine, bint show_key, names=*)
