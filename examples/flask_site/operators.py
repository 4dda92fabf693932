"""The cache's filter with a secret for its dashboard, which is made when the site starts for the first time.

A secret that stands in an ini ends up in a repository. This one is in the instance directory, where only the
site's own user can read it: ``cat examples/flask_site/instance/dashboard-secret``.
"""

from wsgicache.paste import filter_factory

from .app import instance_of, kept_secret

FILE = "dashboard-secret"


def paste_cache(global_conf, **local_conf):
    """The filter of the section ``cache`` of an ini file (``paste.filter_factory``)."""
    secret = kept_secret(instance_of(global_conf), FILE)
    return filter_factory(global_conf, secret=secret, **local_conf)
