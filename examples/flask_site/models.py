"""What the library keeps in its database."""

from datetime import date

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The declarative base of the models below."""


db = SQLAlchemy(model_class=Base)


class User(db.Model):
    """Somebody who may sign in and edit posts."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


class Post(db.Model):
    """A piece of news; its body is plain text, with an empty line between paragraphs."""

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    summary: Mapped[str]
    body: Mapped[str]
    published: Mapped[date]

    @property
    def paragraphs(self) -> list[str]:
        """The body, cut at its empty lines."""
        return [part for part in self.body.replace("\r\n", "\n").split("\n\n") if part.strip()]


class Loan(db.Model):
    """One book that went over the counter."""

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf: Mapped[str]
    lent_on: Mapped[date]
