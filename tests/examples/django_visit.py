"""Run by test_fresh_django.py inside the fresh project: make the requests, print the answers."""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

from example_helpers import new_browser  # noqa: E402
from mysite.wsgi import application  # noqa: E402

answers = []


def note(name, response):
    """Keep what the tests ask about."""
    answers.append(
        (
            name,
            {
                "code": response.status_int,
                "status": response.headers["Cache-Status"],
                "vary": response.headers.get("Vary"),
                "body": response.text,
            },
        )
    )
    return response


visitor, ines = new_browser(application), new_browser(application)

note("first", visitor.get("/"))
note("second", visitor.get("/"))
note("login page", new_browser(application).get("/admin/login/"))
note("login page again", new_browser(application).get("/admin/login/"))

form = ines.get("/admin/login/?next=/").form
note("with csrf cookie", ines.get("/"))
form["username"], form["password"] = "ines", "tidewater"
note("log in", form.submit())
note("signed in", ines.get("/"))
note("signed in again", ines.get("/"))
visitor.get("/")  # the log-in led to this page, which invalidates it (RFC 9111 section 4.4)
note("visitor afterwards", visitor.get("/"))

application.clear()
note("user first", ines.get("/"))
note("visitor second", visitor.get("/"))

json.dump(answers, sys.stdout)
