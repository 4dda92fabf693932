"""gunicorn's settings that no argument gives: gevent's advice for an app that is loaded before the fork."""

import os

if os.environ.get("DEPLOY_PATCHED"):
    from gevent import monkey

    monkey.patch_all()
