"""The first content of the site: five posts, one editor, a year of loans."""

import random
from datetime import date, timedelta

from werkzeug.security import generate_password_hash

from .models import Loan, Post, User, db

EDITOR, PASSWORD = "editor", "tidewater"  # shown on the sign-in page: this is an example

POSTS = [
    (
        "reading-room",
        "The reading room opens at eight",
        "From Monday you can read the papers before work.",
        """From Monday the reading room opens at eight instead of ten, on every weekday. The
papers are on the long table by then, and the kettle in the corner has boiled.

We tried this for a month in spring. On most mornings a dozen people came, read for half an hour
and went on to work. They asked us to keep it, so we do.""",
        date(2025, 9, 29),
    ),
    (
        "tide-tables",
        "Tide tables are back on the counter",
        "The printed tables for the coming year have arrived.",
        """The printed tide tables for the harbour and the two bays have arrived. They lie on the
counter and cost nothing; please take one per boat.

The tide tables of earlier years, back to 1911, are kept in the local collection on the first
floor. Ask at the desk, and we fetch the volume for you.""",
        date(2025, 9, 18),
    ),
    (
        "book-repair",
        "An evening of book repair",
        "Bring a book with a loose spine and leave with a sound one.",
        """On the second Thursday of the month Ines, who binds our books, shows how to mend a
spine, a torn page and a bumped corner. Glue, paper and linen are there. Bring one book, not your
best.

Twelve people fit around the table. Tell us at the desk that you are coming.""",
        date(2025, 9, 4),
    ),
    (
        "large-print",
        "Two hundred new books in large print",
        "Crime, travel and poetry, on the low shelves by the window.",
        """Two hundred books in large print are new on the low shelves by the window: crime above
all, some travel, and more poetry than last year because you asked for it.

If you cannot come to us, the van brings them along on its round on Wednesdays.""",
        date(2025, 8, 21),
    ),
    (
        "van-timetable",
        "A new round for the book van",
        "The van now stops at the lighthouse and at the school in Eastbay.",
        """The van has a new round. On Wednesdays it stops at the lighthouse at ten, at the school
in Eastbay at eleven, and at the ferry landing from one until the tide lets it go home.

The timetable hangs at each stop. When the road is under water, the van comes a day later.""",
        date(2025, 8, 7),
    ),
]

SHELVES = ["Children", "Crime", "Local history", "Poetry", "Sea and sailing"]


def fill() -> None:
    """Put the first content into an empty database."""
    db.session.add(User(name=EDITOR, password_hash=generate_password_hash(PASSWORD)))
    for slug, title, summary, body, published in POSTS:
        text = "\n\n".join(" ".join(part.split()) for part in body.split("\n\n"))
        db.session.add(Post(slug=slug, title=title, summary=summary, body=text, published=published))
    db.session.add_all(_loans())
    db.session.commit()


def _loans() -> list[Loan]:
    chance = random.Random(1911)  # the same year of loans on every machine
    first = date(2024, 10, 1)
    return [
        Loan(shelf=chance.choice(SHELVES), lent_on=first + timedelta(days=chance.randrange(365)))
        for _ in range(3000)
    ]
