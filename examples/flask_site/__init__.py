"""A small public library's site: the example that ``site.ini`` serves behind the cache."""
