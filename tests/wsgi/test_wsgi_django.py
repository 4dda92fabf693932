"""Django behind the cache: streamed bodies, files, and `request_finished` exactly once, after the body.

Django's settings belong to a process, so the visit is made in one of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def answers():
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "django_streams.py"],
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MADE = ["made 0", "made 1", "made 2", "ended"]


def test_a_streamed_page_is_stored_and_django_finishes_once_after_it(answers):
    first, second = answers["stream"], answers["stream again"]
    assert first["log"] == ["started", *MADE, "closing", "finished"]
    assert "stored" in first["status"]
    assert second["log"] == ["closing"]
    assert "; hit" in second["status"]
    assert first["body"] == second["body"] == "0\n1\n2\n"


def test_each_chunk_is_out_before_the_next_is_made(answers):
    assert answers["step by step"]["log"] == [
        "started", "made 0", "out", "made 1", "out", "made 2", "out", "closing", "finished"
    ]  # fmt: skip


def test_a_client_that_leaves_early(answers):
    assert answers["left early"]["log"] == ["started", "made 0", "out", "closing", "finished"]


@pytest.mark.parametrize("name", ["plain", "bypass", "post", "head", "download without wrapper"])
def test_django_finishes_once_at_close(answers, name):
    log = answers[name]["log"]
    assert log.count("started") == log.count("finished") == 1
    assert log.index("finished") > log.index("closing")


def test_a_head_makes_the_body_for_the_store_only(answers):
    assert answers["head"]["body"] == ""
    assert answers["head"]["log"][-1] == "finished"


def test_an_event_stream_is_djangos_own_response(answers):
    assert answers["events"]["iterable"] == "StreamingHttpResponse"
    assert answers["events"]["log"] == ["started", "made 0", "out", "closing", "finished"]


def test_a_large_file_is_left_to_the_servers_file_wrapper(answers):
    download = answers["download"]
    assert download["iterable"] == "FileWrapper"
    assert download["body"] == "x" * 2000
    assert download["log"].count("file closed") == download["log"].count("finished") == 1


def test_a_large_file_without_a_wrapper_is_closed_too(answers):
    log = answers["download without wrapper"]["log"]
    assert log.count("file closed") == 1
    assert "NOT_STORED_TOO_LARGE" in answers["download without wrapper"]["status"]
