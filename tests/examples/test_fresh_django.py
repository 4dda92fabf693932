"""`django-admin startproject` as it comes, its default middleware included, behind the cache.

Django's settings are global to a process, so the visit runs in one of its own and hands its answers
over as JSON; the tests below read them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from example_helpers import EXAMPLES, is_hit, parse_status, stored_miss

HERE = Path(__file__).parent

URLS = """
from itertools import count

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

renders = count(1)


def home(request):
    name = request.user.get_username() or "visitor"
    return HttpResponse(f"Hello {name}, this is rendering {next(renders)}")


urlpatterns = [path("", home), path("admin/", admin.site.urls)]
"""

WSGI = """
import os

from django.core.wsgi import get_wsgi_application
from wsgicache import WSGICache

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = WSGICache(get_wsgi_application())
"""


def run(*command, cwd, **environ):
    """Run a command with this Python; a failure shows what it wrote."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A fresh project on SQLite with one real user."""
    folder = tmp_path_factory.mktemp("django")
    run("-m", "django", "startproject", "mysite", folder, cwd=folder)
    (folder / "mysite" / "urls.py").write_text(URLS)
    (folder / "mysite" / "wsgi.py").write_text(WSGI)
    run("manage.py", "migrate", "--verbosity=0", cwd=folder)
    run(
        *("manage.py", "createsuperuser", "--noinput", "--verbosity=0"),
        *("--username=ines", "--email=ines@example.org"),
        cwd=folder,
        DJANGO_SUPERUSER_PASSWORD="tidewater",
    )
    return folder


@pytest.fixture(scope="module")
def visit(project):
    """The answers to every request of `django_visit.py`, by name."""
    answers = json.loads(run(HERE / "django_visit.py", cwd=project))
    return {name: answer | {"seen": parse_status(answer["status"])} for name, answer in answers}


def test_the_project_has_the_default_middleware(project):
    settings = (project / "mysite" / "settings.py").read_text()
    for name in ("SessionMiddleware", "CsrfViewMiddleware", "AuthenticationMiddleware"):
        assert name in settings


def test_anonymous_visitors_hit_although_the_page_varies_on_cookie(visit):
    assert visit["first"]["vary"] == "Cookie"
    assert visit["first"]["seen"] == stored_miss()
    assert is_hit(visit["second"]["seen"])
    assert visit["second"]["body"] == visit["first"]["body"] == "Hello visitor, this is rendering 1"


def test_a_csrf_cookie_alone_still_hits(visit):
    assert is_hit(visit["with csrf cookie"]["seen"])


def test_the_login_page_is_not_stored_because_it_sets_a_csrf_cookie(visit):
    for name in ("login page", "login page again"):
        assert visit[name]["seen"]["fwd"] == "uri-miss"
        assert "stored" not in visit[name]["seen"]
    assert visit["login page"]["body"] != visit["login page again"]["body"]


def test_logging_in_reaches_the_app(visit):
    assert visit["log in"]["code"] == 302
    assert visit["log in"]["seen"]["detail"] == "METHOD_UNSAFE"


def test_a_logged_in_user_never_hits(visit):
    for name, rendering in (("signed in", 2), ("signed in again", 3)):
        assert visit[name]["body"] == f"Hello ines, this is rendering {rendering}"
        assert visit[name]["seen"]["detail"] == "BYPASS_COOKIE"


def test_a_visitor_still_hits_after_somebody_logged_in(visit):
    assert is_hit(visit["visitor afterwards"]["seen"])
    assert visit["visitor afterwards"]["body"] == "Hello visitor, this is rendering 4"


def test_what_a_user_caused_to_be_rendered_is_not_stored(visit):
    assert visit["user first"]["body"].startswith("Hello ines")
    assert visit["visitor second"]["body"].startswith("Hello visitor")


def test_the_single_file_example_hits_too():
    code = (
        "from example_helpers import *\n"
        "example = load(EXAMPLES / 'django_app.py')\n"
        "site = new_browser(example.application)\n"
        "first, second = site.get('/'), site.get('/')\n"
        "assert decision(first) == stored_miss(), decision(first)\n"
        "assert is_hit(decision(second)) and second.body == first.body\n"
        "for path, headers, reason in [\n"
        "    ('/?page=2', {}, 'BYPASS_QUERY'), ('/', {'Cookie': 'a=1'}, 'BYPASS_COOKIE')]:\n"
        "    assert decision(site.get(path, headers=headers))['detail'] == reason\n"
        "assert decision(site.post('/', 'x=1'))['detail'] == 'METHOD_UNSAFE'\n"
        "assert next(example.renders) == 5\n"
    )
    assert (EXAMPLES / "django_app.py").exists()
    run("-W", "error", "-c", code, cwd=HERE)
