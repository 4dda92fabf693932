"""The command over a Cluster and over Sentinels: several journals, several servers, one answer."""

import sys
from pathlib import Path

import pytest
from cli_helpers import data, run

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

import servers_redis

HOST = "http://example.com"
APP = ("--app", "cli_site:app")
PAGES = [f"/posts/{number}" for number in range(12)]


@pytest.fixture(params=[servers_redis.empty_cluster, servers_redis.empty_sentinels])
def servers(request):
    return request.param()


@pytest.fixture
def site(servers, make_site):
    site = make_site(f"{servers.url}?timeout=20s", store_timeout=20)
    site.ask(*PAGES, "/about", "/admin/")
    return site


def test_what_is_spread_is_listed_purged_and_switched_as_one(site):
    assert len(data("ls", *APP)["entries"]) == 13
    assert len(data("ls", "--group", "posts", *APP)["entries"]) == 12
    assert data("show", f"{HOST}/posts/7", *APP)[0]["groups"] == ["posts"]
    assert data("explain", f"{HOST}/posts/7", *APP)["hit"]
    assert data("purge", "--group", "posts", "--dry-run", *APP)["matched"] == 12
    assert data("purge", "--group", "posts", *APP)["matched"] == 12
    assert run("purge", "--group", "posts", *APP, code=1)
    assert {site.ask(page).detail for page in PAGES} == {"MISS_PURGED"}
    assert site.ask("/about").is_hit
    run("rules", "disable", "admin", *APP)
    site.ask("/about", method="HEAD")
    assert data("explain", f"{HOST}/admin/", *APP)["reason"] == "URI_MISS"
    site.tell()
    assert data("stats", *APP)["hits"] >= 1


def test_each_server_says_how_it_is_set_up(site):
    found = {one["subject"]: one["level"] for one in data("check", *APP)}
    assert found["round trip"] == "ok"
    servers = [subject for subject in found if subject.partition(",")[0] == "eviction policy"]
    assert len(servers) == (3 if "cluster" in site.store else 1)
