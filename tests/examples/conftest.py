"""Fixtures of the example tests."""

import pytest
from example_helpers import ROOT, SITE_INI, new_browser


@pytest.fixture
def open_site(tmp_path, monkeypatch):
    """Open the example site from an ini file, as gunicorn does; gives a maker of browsers."""
    from paste.deploy import loadapp

    monkeypatch.syspath_prepend(str(ROOT))

    def open_site(ini=SITE_INI):
        app = loadapp(f"config:{ini}", global_conf={"instance": str(tmp_path / "instance")})
        return lambda: new_browser(app)

    return open_site
