"""`flask wsgicache …` beside real workers: what it purges is purged there, and their counts add up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

import wsgicache

ROOT = Path(wsgicache.__file__).parents[1]
APP = Path(__file__).parent / "flask_site_app.py"


@pytest.fixture
def environ(redis_port):
    import redis

    with redis.Redis(port=redis_port) as server:
        server.flushall()
    return {**os.environ, "PYTHONPATH": str(ROOT), "SITE_REDIS_PORT": str(redis_port)}


@pytest.fixture
def flask(environ):
    """Run `flask wsgicache …` as a process of its own."""

    def flask(*words, fails=False):
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-m", "flask", "--app", str(APP), "wsgicache", *words],
            env=environ, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (ran.returncode != 0) == fails, ran.stderr
        return ran.stderr if fails else ran.stdout

    return flask


@pytest.fixture
def workers(environ):
    """Two worker processes; each is asked for a path and says whether it was a hit, and the body."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", f"import {APP.stem}; {APP.stem}.serve()"],
            cwd=APP.parent, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip

    def asked(process):
        def ask(path):
            process.stdin.write(path + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip().split(" ", 1)

        return ask

    for process in started:
        assert process.stdout.readline().strip() == "ready"
    yield [asked(process) for process in started]
    for process in started:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def test_purges_reach_the_workers_and_counts_add_up(flask, workers):
    first, second = workers
    assert first("/post/1")[0] == "miss"
    assert [second("/post/1")[0] for _ in range(3)] == ["hit"] * 3
    assert first("/post/2")[0] == "miss"
    assert second("/basket")[0] == "miss"

    told = flask("purge", "--group", "post-1")
    assert "post-1" in told
    assert second("/post/1")[0] == "miss"  # the page is gone, and the text that it is made of
    assert first("/post/1")[0] == "hit"
    flask("purge", "/post/1")
    assert first("/post/1")[0] == "miss"
    assert "hit" in flask("explain", "/post/2").lower()
    flask("purge", "--prefix", "/post")
    assert second("/post/2")[0] == "miss"
    flask("purge", "--all")
    assert second("/post/2")[0] == "miss"

    lines = flask("routes").splitlines()
    assert any("/post/<int:n>" in line and "ttl=60" in line and "post-{n}" in line for line in lines)
    assert any("/basket" in line and "bypass" in line for line in lines)


def test_counts_of_workers_and_of_both_caches_add_up(flask, workers):
    first, second = workers
    first("/post/1")
    for _ in range(4):
        assert second("/post/1")[0] == "hit"
    first("/basket"), second("/basket")
    first("report"), second("report")  # as each of them does every few seconds
    told = json.loads(flask("stats"))
    assert told["views"] == {
        # Only the answer said that it is not stored, so the first request was a miss.
        "basket": {"hits": 0, "misses": 1, "calls": 2, "hit_ratio": 0.0},
        "post": {"hits": 4, "misses": 1, "calls": 1, "hit_ratio": 0.8},
    }
    assert list(told["data"].values()) == [{"hits": 0, "misses": 1, "hit_ratio": 0.0}]
    assert first("/post/1")[0] == "hit"
    first("report")
    assert json.loads(flask("stats"))["views"]["post"]["hits"] == 5


def test_what_it_cannot_do_it_says(flask):
    assert "name a URL" in flask("purge", fails=True)
    assert "no path" in flask("purge", "no path", fails=True)
    assert "no path" in flask("explain", "no path", fails=True)
