"""Each small example as its file stands: a miss is stored, a hit follows, the rest bypasses."""

import pytest
from example_helpers import EXAMPLES, decision, is_hit, load, new_browser, stored_miss

NAMES = sorted({file.stem for file in EXAMPLES.glob("*.py")} - {"proxy", "webhook"})


@pytest.fixture(params=[name for name in NAMES if name != "django_app"])
def example(request):
    return load(EXAMPLES / f"{request.param}.py")


@pytest.fixture
def site(example):
    return new_browser(example.application)


def test_all_frameworks_have_an_example():
    assert NAMES == ["bare", "bottle_app", "django_app", "falcon_app", "flask_app", "pyramid_app"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_about_a_dozen_lines_and_wraps_in_one(name):
    lines = (EXAMPLES / f"{name}.py").read_text().split('"""')[2].split("\n")
    assert len([line for line in lines if line.strip()]) <= 16
    assert len([line for line in lines if "WSGICache(" in line]) == 1


def test_the_second_request_is_a_hit_and_the_app_ran_once(example, site):
    first = site.get("/")
    second = site.get("/")
    assert decision(first) == stored_miss()
    assert is_hit(decision(second))
    assert second.status == first.status
    assert second.body == first.body
    assert second.content_type == first.content_type
    assert next(example.renders) == 2


def test_a_head_request_is_answered_from_the_stored_get(example, site):
    first = site.get("/")
    head = site.head("/")
    assert is_hit(decision(head))
    assert head.body == b""
    assert head.headers["Content-Length"] == str(len(first.body))
    assert next(example.renders) == 2


@pytest.mark.parametrize(
    ("path", "headers", "reason"),
    [
        ("/?page=2", {}, "BYPASS_QUERY"),
        ("/", {"Cookie": "sessionid=1"}, "BYPASS_COOKIE"),
        ("/", {"Authorization": "Basic aW5lczp4"}, "BYPASS_AUTHORIZATION"),
    ],
)
def test_what_may_be_personal_goes_to_the_app(example, site, path, headers, reason):
    first = site.get("/")
    own = site.get(path, headers=headers)
    assert decision(own) == {"fwd": "bypass", "fwd-status": 200, "detail": reason}
    assert own.body != first.body
    again = site.get("/")
    assert is_hit(decision(again))
    assert again.body == first.body
    assert next(example.renders) == 3


def test_a_post_goes_to_the_app(site):
    site.get("/")
    posted = site.post("/", {"name": "value"}, status="*")
    seen = decision(posted)
    assert (seen["fwd"], seen["detail"]) == ("method", "METHOD_UNSAFE")
    assert seen["fwd-status"] == posted.status_int
    assert "stored" not in seen


def test_a_post_that_succeeds_invalidates_the_page():
    site = new_browser(load(EXAMPLES / "bare.py").application)
    first = site.get("/")
    site.post("/", {"name": "value"})
    after = site.get("/")
    assert decision(after)["fwd"] == "uri-miss"
    assert after.body != first.body
