"""The benchmark over HTTP starts, looks at, counts and stops right. Speed is not tested here."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks"
PROXIES = {"nginx": "nginx", "nginx-open": "nginx", "nginx-static": "nginx", "varnish": "varnishd"}


LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The first and the last of the ports that the kernel lends to clients."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def installed(program: str) -> bool:
    return bool(shutil.which(program) or shutil.which(program, path="/usr/sbin"))


def needs_wrk_and_two_cores() -> None:
    if not installed("wrk"):
        pytest.skip("wrk is not installed: apt-get install wrk")
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("takes two processor cores")


def overhttp(report: Path, only: str) -> tuple[str, dict[str, Any]]:
    """Output and JSON of one tiny run."""
    command = [sys.executable, "-W", "error", str(SCRIPTS / "overhttp.py"), "--only", only]
    command += ["--rounds", "1", "--seconds", "0.2", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout, json.loads(report.read_text())


def test_a_server_with_and_without_the_cache(tmp_path: Path) -> None:
    needs_wrk_and_two_cores()
    output, found = overhttp(tmp_path / "run.json", "waitress-bare,waitress-fields,waitress-hit")
    assert list(found["rows"]) == ["waitress-bare", "waitress-fields", "waitress-hit"]
    assert [len(row["rounds_rps"]) for row in found["rows"].values()] == [1, 1, 1]
    assert all(row["median_rps"] > 0 and row["cpu_us"] > 0 for row in found["rows"].values())
    (goal,) = found["goals"]
    assert (goal["row"], goal["wanted"]) == ("waitress-hit", 0.95)
    assert goal["ratio"] == pytest.approx(found["rows"]["waitress-hit"]["to_bare"])
    assert goal["met"] is (goal["ratio"] >= 0.95)
    assert "4  at least 0.95 of the bare app on waitress" in output
    assert found["versions"]["wrk"] in output


@pytest.mark.parametrize("kind", PROXIES)
def test_a_proxy_answers_from_its_cache(kind: str, tmp_path: Path) -> None:
    """Each row is counted only after its answer proved to be a hit."""
    needs_wrk_and_two_cores()
    if not installed(PROXIES[kind]):
        pytest.skip(f"{PROXIES[kind]} is not installed")
    _, found = overhttp(tmp_path / "run.json", kind)
    assert kind in found["rows"]
    assert found["wrong"] == []


@pytest.mark.parametrize("kind", PROXIES)
def test_the_configuration_is_accepted(bench: Any, kind: str) -> None:
    if not installed(PROXIES[kind]):
        pytest.skip(f"{PROXIES[kind]} is not installed")
    said = bench("_proxies").check_configuration(kind)
    assert "default" in said if kind == "varnish" else "test is successful" in said


def test_a_wrong_answer_is_not_counted(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that says hit and is none is refused, over a real server."""
    module = bench("overhttp")
    command = module.command_of("waitress", "bare", "memory://")
    with bench("_servers").running(command) as server:
        assert module.check(module.Row("waitress", "bare", server)) > len(module.PAGE)
        with pytest.raises(module.WrongAnswer, match="does not look like it"):
            module.check(module.Row("waitress", "hit", server))
        monkeypatch.setattr(module, "PAGE", b"another page")
        with pytest.raises(module.WrongAnswer, match="200, 10240 bytes; expected 200, 12 bytes"):
            module.check(module.Row("waitress", "bare", server))
    with socket.socket() as asked:
        assert asked.connect_ex(("127.0.0.1", server.port)) != 0  # it is stopped


def test_a_sample_that_fails_is_repeated_and_then_dropped(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = bench("overhttp")
    good, bad = module.Row("good", "bare", None), module.Row("bad", "bare", None)
    run = module.Run([good, bad])
    tries = {"good": 0, "bad": 0}

    def sample(row: Any, client: object, seconds: float) -> None:
        tries[row.server] += 1
        if row is bad or tries["good"] == 1:
            raise module.WrongAnswer("status 500")

    monkeypatch.setattr(module, "sample", sample)
    module.measure(run, None, 2, 0.1)
    assert tries == {"good": 3, "bad": 3}
    assert run.rows == [good]
    assert run.repeated == ["good-bare: status 500", "bad-bare: status 500", "bad-bare: status 500"]
    assert run.wrong == ["WRONG ANSWER, not shown: bad-bare: status 500"]


def test_ratios_are_taken_round_by_round(bench: Any) -> None:
    module = bench("overhttp")
    hit, bare = module.Row("fastpysgi", "hit", None), module.Row("fastpysgi", "bare", None)
    for rate, other in ((90, 100), (45, 50), (10, 100)):
        hit.loads.append(bench("_wrk").Load(rate, 1.0, 1, 0, 0, 0.0))
        bare.loads.append(bench("_wrk").Load(other, 1.0, 1, 0, 0, 0.0))
    assert hit.to(bare) == pytest.approx(0.9)
    (verdict,) = module.verdicts(module.Run([bare, hit]))
    assert (verdict.row, verdict.wanted, verdict.met) == ("fastpysgi-hit", 0.90, True)


def test_what_wrk_counts_is_read(bench: Any) -> None:
    load = bench("_wrk").parse("Running 10m test\n\ncounted 1500 1500000 15720000 1 2 2500\n")
    assert (load.rate, load.seconds, load.bytes) == (1000.0, 1.5, 15_720_000)
    assert (load.failed, load.refused, load.p99) == (1, 2, 0.0025)


def test_wrk_sends_the_fields_of_a_browser(bench: Any) -> None:
    words = bench("_wrk").header_lines(bench("_apps").browser_environ())
    assert "Accept-Encoding: gzip, deflate, br, zstd" in words
    assert not any(word.startswith(("Host", "Connection")) for word in words)


def test_a_server_that_does_not_start_says_why(bench: Any) -> None:
    words = [sys.executable, "-c", "raise SystemExit('no such page')"]
    with (
        pytest.raises(RuntimeError, match=r"did not start: .*no such page"),
        bench("_servers").running(lambda port: words),
    ):
        pass


def test_without_wrk_the_remedy_is_named(tmp_path: Path) -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("takes two processor cores")
    if Path("/usr/sbin/wrk").exists():
        pytest.skip("wrk is where programs are looked for in any case")
    command = [sys.executable, "-W", "error", str(SCRIPTS / "overhttp.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert "skipped, not installed: everything: wrk: apt-get install wrk" in done.stdout


@pytest.mark.skipif(not LENT.exists(), reason="this system tells it elsewhere")
def test_no_client_is_lent_the_port_of_a_server_that_starts(bench: Any) -> None:
    """Who asks one of those ports whether a server answers there may be connected with itself."""
    first = int(LENT.read_text().split()[0])
    assert all(bench("_servers").free_port(above=100) < first for _ in range(50))
