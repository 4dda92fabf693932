"""The transcript in docs/cli.md: its commands, run; what they print, compared or written down.

    python tests/cli/transcript.py DIRECTORY     runs it in a directory and writes the page anew

Commands of all `console` blocks run one after the other in one shell, 80 columns wide, beside the ini of the
example site with a store that processes share. A Redis server is there too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"
WHERE = "/srv/library"
"""Where the page says that this happened."""

REDIS = "localhost:6379"
PAGES = "/\n/posts/reading-room\n/posts/tide-tables\n/search?q=tide\n/about?ref=mail\n/login\n"
_MARK = "\x1e"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)


def prepare(directory):
    """The ini of the example site, over a store that processes share, and a list of pages."""
    directory.mkdir(parents=True, exist_ok=True)
    ini = (ROOT / "examples" / "flask_site" / "site.ini").read_text()
    (directory / "site.ini").write_text(ini.replace("memory://", f"lmdb://{directory}/cache"))
    (directory / "site.ini").chmod(0o644)
    (directory / "pages.txt").write_text(PAGES)


def steps(page):
    """Each command of a page, and what it printed."""
    found = []
    for block in _BLOCK.findall(page):
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, printed = step.partition("\n")
            found.append((command, printed))
    return found


def play(commands, directory, redis):
    """What each command prints, output and errors as a terminal shows them."""
    script = [f'wsgicache() {{ "{sys.executable}" -m wsgicache "$@"; }}']
    for command in commands:
        script += [command.replace(REDIS, redis), f"code=$?; printf '{_MARK}'; (exit $code)"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WSGICACHE_")}
    environ |= {"COLUMNS": "80", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=directory,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    *printed, rest = done.stdout.split(_MARK)
    assert not rest, rest
    assert len(printed) == len(commands), done.stdout
    return [text.replace(str(directory), WHERE).replace(redis, REDIS) for text in printed]


def flat(text):
    """What was printed without what differs from run to run: times, places, owners, how lines are broken."""
    text = re.sub(r"\s+", " ", text.replace("─", " ")).strip()
    for pattern, put in _VARYING:
        text = re.sub(pattern, put, text)
    return text


_VARYING = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "INSTANT"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "INSTANT"),
    (r"lifetime - [\d.]+ s age = [\d.]+ s left", "ARITHMETIC"),
    (r"\b\d+ (s|min|h|d) (from now|\d)", r"DURATION \2"),
    (r"\bfresh (\d+ \w+)", "fresh LEFT"),
    (r"answers in [\d.e-]+ ms", "answers in TIME"),
    (r"[\d.]+ (k|M|G|T)?B (free|in use|of)", r"SIZE \2"),
    (r"still grow by [\d.]+ MB", "still grow by SIZE"),
    (r", of \w+", ", of OWNER"),
    (r"(Redis|Valkey) [\d.]+", r"\1 VERSION"),
    (r'"[\w-]{16}"', '"ETAG"'),
    (r"[\d.]+ kB", "SIZE"),
]


def main(directory):
    """Run the commands of the page in a directory, and write what they print into it."""
    sys.path[:0] = [str(ROOT / "tests" / "stores"), str(ROOT / "tests"), str(ROOT)]
    import servers_redis

    server = servers_redis.Server()
    prepare(directory)
    page = PAGE.read_text()
    commands = [command for command, _ in steps(page)]
    printed = iter(play(commands, directory, f"localhost:{server.port}"))

    def block(match):
        names = [step.partition("\n")[0] for step in re.split(r"^\$ ", match[1], flags=re.M)[1:]]
        return "```console\n" + "".join([f"$ {name}\n{next(printed)}" for name in names]) + "```"

    PAGE.write_text(_BLOCK.sub(block, page))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
