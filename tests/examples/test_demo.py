"""The example site under real gunicorn, over sockets, and the demo that shows it."""

import http.client
import os
import re
import signal
import subprocess
import sys

import pytest
from example_helpers import ROOT, ended, is_hit, load, parse_status, stored_miss

DEMO = ROOT / "scripts" / "_demo.py"
POST = "/posts/book-repair"
NEW = {"title": "Glue is out", "summary": "We wait for glue.", "body": "No glue."}


@pytest.fixture(scope="module")
def demo():
    return load(DEMO)


@pytest.fixture(scope="module")
def port(demo, tmp_path_factory):
    """The site, served as the demo serves it: `gunicorn --paste examples/flask_site/site.ini`."""
    with demo.serving(tmp_path_factory.mktemp("served")) as (_, port):
        yield port


@pytest.fixture
def ask(demo, port):
    """Make a request; gives the answer and its decision."""

    def ask(path, form=None, cookie=""):
        answer = demo.ask(port, path, form, cookie)
        return answer, parse_status(answer.cache_status)

    return ask


def signed_in(port, secret):
    """What the dashboard answers to a secret, and to who has signed in with it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{port}"}
    connection.request("POST", "/.cache/login", f"secret={secret}", sent)
    first = connection.getresponse()
    first.read()
    cookie = first.getheader("Set-Cookie", "").partition(";")[0]
    connection.request("GET", "/.cache/", headers={"Cookie": cookie})
    second = connection.getresponse()
    second.read()
    connection.close()
    return first.status, second.status


@pytest.fixture
def cookie(ask):
    answer, seen = ask("/login", {"name": "editor", "password": "tidewater"})
    assert (answer.status, seen["fwd"]) == (303, "method")
    return answer.cookie


def test_the_second_request_hits(ask):
    first, seen_first = ask("/posts/van-timetable")
    second, seen_second = ask("/posts/van-timetable")
    assert seen_first == stored_miss()
    assert is_hit(seen_second)
    assert second.body == first.body


def test_a_hit_on_the_slow_report_comes_at_once(ask):
    ask("/report")
    assert is_hit(ask("/report")[1])
    fastest = min(ask("/report")[0].milliseconds for _ in range(20))
    assert fastest < 400, "what the report takes by itself"


def test_the_admin_area_bypasses(ask, cookie):
    for answer, seen in (ask("/admin/"), ask("/admin/", cookie=cookie)):
        assert (seen["fwd"], seen["detail"]) == ("bypass", "BYPASS_RULE")
        assert answer.status in (200, 303)


def test_an_editor_gets_the_app_and_visitors_the_cache(ask, cookie):
    ask("/")
    own, seen_own = ask("/", cookie=cookie)
    other, seen_other = ask("/")
    assert seen_own["detail"] == "BYPASS_COOKIE"
    assert "Signed in as editor" in own.body
    assert is_hit(seen_other)
    assert "Signed in" not in other.body


def test_a_saved_post_is_seen_at_once(ask, cookie):
    before, _ = ask(POST)
    assert is_hit(ask(POST)[1])
    saved, _ = ask(f"/admin{POST}", NEW, cookie)
    after, seen = ask(POST)
    assert saved.status == 303
    assert NEW["title"] not in before.body
    assert NEW["title"] in after.body
    assert seen["fwd"] == "uri-miss"
    # The server may end the POST only now, and what was changed until then is purged once more.
    assert any(is_hit(ask(POST)[1]) for _ in range(20))


def test_the_demo_gives_its_account_and_ends():
    done = subprocess.run([sys.executable, DEMO, "--once"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    rows = re.findall(r"^ *\d+  (?:GET|POST) (\S+) +(\d+) +([\d.]+) ms  (.+)$", done.stdout, re.M)
    seen = [parse_status(status) for *_, status in rows]
    assert [path for path, *_ in rows[:4]] == ["/", "/", "/report", "/report"]
    assert [is_hit(decision) for decision in seen[:4]] == [False, True, False, True]
    assert float(rows[2][2]) > 400, "what the report takes by itself"
    assert {"BYPASS_QUERY", "BYPASS_RULE", "BYPASS_COOKIE"} <= {s.get("detail") for s in seen}
    assert "http://" not in done.stdout


def test_the_demo_serves_until_it_is_interrupted(demo):
    command = [sys.executable, str(DEMO)]
    with ended(subprocess.Popen(command, stdout=-1, stderr=-1, text=True)) as process:
        told = []
        while not told or not told[-1].startswith("The site is at"):
            told.append(process.stdout.readline())
            assert told[-1], "it ended before it told where the site is"
        port = int(re.search(r":(\d+)/", told[-1])[1])
        assert demo.ask(port, "/").status == 200
        assert told[-3] == f"The dashboard of the cache is at http://127.0.0.1:{port}/.cache/\n"
        assert signed_in(port, told[-2].split()[-1]) == (303, 200)
        assert signed_in(port, "guess" * 8) == (403, 403)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    with pytest.raises(ConnectionRefusedError):
        demo.ask(port, "/")


def test_the_demo_stops_gunicorn_when_it_is_terminated(demo):
    command = [sys.executable, str(DEMO)]
    with ended(subprocess.Popen(command, stdout=-1, stderr=-1, text=True)) as process:
        lines = iter(process.stdout.readline, "")
        address = next(line for line in lines if line.startswith("The site is at"))
        port = int(re.search(r":(\d+)/", address)[1])
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        demo.ask(port, "/")


def test_the_demo_says_why_the_site_did_not_start(demo, tmp_path, monkeypatch):
    broken = tmp_path / "broken.ini"
    broken.write_text("[app:main]\npaste.app_factory = examples.nowhere:app\n")
    monkeypatch.setattr(demo, "INI", broken)
    with pytest.raises(demo.DemoFailed, match="nowhere"), demo.serving(tmp_path):
        pass
    assert not os.path.exists(tmp_path / "instance")


def test_the_demo_fails_when_the_account_would_be_untrue(demo, port, monkeypatch, capsys):
    monkeypatch.setattr(demo, "STEPS", [demo.Step("a post", "/posts/large-print", "hit", "no.")])
    with pytest.raises(demo.DemoFailed, match="should say hit"):
        demo.tell(port)
    assert "GET /posts/large-print" in capsys.readouterr().out
