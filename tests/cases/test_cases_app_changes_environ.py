"""What the app does to its environ says nothing of the request: varying values are the client's."""

import pytest

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_var_02_a_varying_field_that_the_app_takes_out_of_its_environ_still_selects(profile):
    def answer(environ):
        language = environ.pop("HTTP_ACCEPT_LANGUAGE", "no language")
        headers = [("Content-Type", "text/plain"), ("Vary", "Accept-Language")]
        return Response(headers=headers, body=f"in {language}".encode())

    app = ScriptedApp(answer)
    cache = WSGICache(app, profile=profile, ttl=300, clock=FakeClock())
    plain = {"Accept-Encoding": "gzip"}  # its normal form, so that nothing else in the environ changes
    french = {**plain, "Accept-Language": "fr"}
    assert ask(cache, headers=french).stored
    other = ask(cache, headers=plain)
    assert other.cache["fwd"] == "vary-miss"
    assert (other.body, app.calls) == (b"in no language", 2)
    again = ask(cache, headers=french)
    assert again.is_hit
    assert (again.body, app.calls) == (b"in fr", 2)
