"""The webhook: a signed message purges, anything else does not."""

import hmac
import json

import pytest
from example_helpers import EXAMPLES, load

from wsgicache import WSGICache
from wsgicache.client import Client
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask

SECRET = "the content system knows it too"


@pytest.fixture
def parts():
    server = SharedServer()
    cache = WSGICache(ScriptedApp(Response(headers=[("Cache-Tag", "posts")], body=b"x")), SharedStore(server))
    client = Client(SharedStore(server, memo_bytes=0))
    for page in ("/posts/tide", "/"):
        ask(cache, page)
        assert ask(cache, page).is_hit
    return cache, load(EXAMPLES / "webhook.py").make_application(SECRET, client)


def send(webhook, message, secret=SECRET):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    sent = {
        "Content-Type": "application/json",
        "X-Signature": hmac.new(secret.encode(), body, "sha256").hexdigest(),
    }
    return ask(webhook, "/", method="POST", headers=sent, body=body).code


def test_a_message_purges_the_post_and_the_pages_that_list_it(parts):
    cache, webhook = parts
    assert send(webhook, {"slug": "tide"}) == 200
    assert not any(ask(cache, page).is_hit for page in ("/posts/tide", "/"))


@pytest.mark.parametrize(
    ("message", "secret", "code"),
    [({"slug": "tide"}, "guessed", 403), ({"slug": 1}, SECRET, 400), ([], SECRET, 400), (b"{", SECRET, 400)],
)
def test_anything_else_does_not(parts, message, secret, code):
    cache, webhook = parts
    assert send(webhook, message, secret) == code
    assert all(ask(cache, page).is_hit for page in ("/posts/tide", "/"))


@pytest.mark.parametrize(
    ("slug", "code"), [("tide?x=1", 200), ("a/../b", 200), ("\udc80", 400), ("a\nb", 400)]
)
def test_a_slug_is_one_part_of_a_path(parts, slug, code):
    cache, webhook = parts
    ask(cache, "/b")
    assert send(webhook, {"slug": slug}) == code
    assert ask(cache, "/posts/tide").is_hit is (code == 400), "the group that lists posts"
    assert ask(cache, "/b").is_hit is (code == 400)


@pytest.mark.parametrize("variable", ["WEBHOOK_SECRET", "STORE"])
def test_an_empty_secret_is_none(variable, monkeypatch):
    for name in ("WEBHOOK_SECRET", "STORE"):
        monkeypatch.setenv(name, "redis://localhost:1")
    monkeypatch.setenv(variable, "")
    with pytest.raises(SystemExit, match=variable):
        load(EXAMPLES / "webhook.py").application  # noqa: B018


def test_a_store_that_is_down_is_told_so_that_the_message_comes_again():
    server = SharedServer()
    client = Client(SharedStore(server, memo_bytes=0))
    webhook = load(EXAMPLES / "webhook.py").make_application(SECRET, client)
    server.down = True
    assert send(webhook, {"slug": "tide"}) == 503


def test_without_its_variables_it_says_which(monkeypatch):
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    monkeypatch.delenv("STORE", raising=False)
    with pytest.raises(SystemExit, match="WEBHOOK_SECRET and STORE"):
        load(EXAMPLES / "webhook.py").application  # noqa: B018
