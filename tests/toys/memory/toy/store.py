"""A toy memory: SQLite's tables, every method one transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from memory.protocol import Deleted, Entry, Item, Place, StoredProfile, StoredRating, in_order
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from .config import ToyMemoryConfig

_TABLES = """
CREATE TABLE IF NOT EXISTS items (owner, session, turn, answer, token, body, expires_at, held_until, turn_id, entry, rating,
                                  PRIMARY KEY (owner, session, turn, answer));
CREATE TABLE IF NOT EXISTS notes (session PRIMARY KEY, owner, expires_at);
CREATE TABLE IF NOT EXISTS profiles (owner PRIMARY KEY, version, body);
"""
_OF = "owner = ? AND session = ?"


class ToyMemoryStore:
    """Inserts that fail where something stands are SQLite's primary keys."""

    def __init__(self, config: ToyMemoryConfig) -> None:
        """Open nothing yet."""
        self._config = config

    def check(self) -> None:
        """Make the tables."""
        self._run("SELECT 1")

    def recent(self, place: Place, most: int) -> list[Item]:
        """The last items."""
        return self._items(f"{_OF} ORDER BY turn DESC, answer DESC LIMIT ?", place.owner, place.session, most)

    def turn(self, place: Place, number: int) -> list[Item]:
        """The items of a turn."""
        return self._items(f"{_OF} AND turn = ?", place.owner, place.session, number)

    def turn_named(self, place: Place, turn_id: str) -> int | None:
        """The turn of an id."""
        rows = self._run(f"SELECT turn FROM items WHERE {_OF} AND turn_id = ?", place.owner, place.session, turn_id)
        return int(rows[0][0]) if rows else None

    def claim(self, place: Place, question: Item, entry: Entry, turn_id: str | None) -> bool:
        """Insert a question."""
        return self._insert(place, question, turn_id, entry.body)

    def hold(self, place: Place, number: int, seen: str, token: str, until: float) -> bool:
        """Give a question another token."""
        return self._changed(
            f"UPDATE items SET token = ?, held_until = ? WHERE {_OF} AND turn = ? AND answer = 0 AND token = ? AND NOT EXISTS"
            f" (SELECT 1 FROM items WHERE {_OF} AND turn = ? AND answer = 1)",
            token, until, place.owner, place.session, number, seen, place.owner, place.session, number,
        )  # fmt: skip

    def settle(self, place: Place, answer: Item) -> bool:
        """Insert an answer beside its question."""
        question = self.turn(place, answer.turn)
        return bool(question) and question[0].token == answer.token and self._insert(place, answer, None, None)

    def entries(self, owner: str) -> list[Entry]:
        """The last question of each session."""
        rows = self._run(
            "SELECT session, max(turn), entry, expires_at FROM items WHERE owner = ? AND answer = 0 GROUP BY session",
            owner,
        )
        return [Entry(*row) for row in rows]

    def rate(self, place: Place, rating: StoredRating) -> bool:
        """Write a rating into its answer."""
        statement = f"UPDATE items SET rating = ? WHERE {_OF} AND turn = ? AND answer = 1"
        return self._changed(statement, rating.body, place.owner, place.session, rating.turn)

    def ratings(self, place: Place) -> list[StoredRating]:
        """The ratings of a session."""
        statement = f"SELECT turn, rating, expires_at FROM items WHERE {_OF} AND rating IS NOT NULL ORDER BY turn"
        return [StoredRating(*row) for row in self._run(statement, place.owner, place.session)]

    def delete(self, place: Place) -> Deleted:
        """Delete a session."""
        rated = len(self.ratings(place))
        with closing(self._opened()) as database, database:
            deleted = database.execute(f"DELETE FROM items WHERE {_OF}", (place.owner, place.session)).rowcount
        return Deleted(deleted, rated)

    def register(self, session: str, owner: str, expires_at: int, now: float) -> str:
        """Note an owner."""
        self._run("DELETE FROM notes WHERE session = ? AND (owner = ? OR expires_at <= ?)", session, owner, now)
        self._run("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", session, owner, expires_at)
        return self.registered(session) or owner

    def registered(self, session: str) -> str | None:
        """The noted owner."""
        rows = self._run("SELECT owner FROM notes WHERE session = ?", session)
        return str(rows[0][0]) if rows else None

    def unregister(self, session: str, owner: str) -> None:
        """Remove a note."""
        self._run("DELETE FROM notes WHERE session = ? AND owner = ?", session, owner)

    def profile(self, owner: str) -> StoredProfile | None:
        """A profile."""
        rows = self._run("SELECT version, body FROM profiles WHERE owner = ?", owner)
        return StoredProfile(*rows[0]) if rows else None

    def put_profile(self, owner: str, body: str, seen: int) -> bool:
        """Write a profile."""
        if not seen:
            return self._changed("INSERT OR IGNORE INTO profiles VALUES (?, 1, ?)", owner, body)
        return self._changed(
            "UPDATE profiles SET version = version + 1, body = ? WHERE owner = ? AND version = ?", body, owner, seen
        )

    def delete_profile(self, owner: str) -> bool:
        """Delete a profile."""
        return self._changed("DELETE FROM profiles WHERE owner = ?", owner)

    def close(self) -> None:
        """Nothing stays open."""

    def _insert(self, place: Place, item: Item, turn_id: str | None, entry: str | None) -> bool:
        values = (
            place.owner, place.session, item.turn, int(item.is_answer), item.token, item.body, item.expires_at, item.held_until,
            turn_id, entry, None,
        )  # fmt: skip
        return self._changed(f"INSERT OR IGNORE INTO items VALUES ({', '.join('?' * len(values))})", *values)

    def _items(self, where: str, *values: Any) -> list[Item]:
        rows = self._run(f"SELECT turn, token, body, expires_at, answer, held_until FROM items WHERE {where}", *values)
        return in_order([
            Item(turn, token, body, expires_at, is_answer=bool(answer), held_until=held_until)
            for turn, token, body, expires_at, answer, held_until in rows
        ])  # fmt: skip

    def _run(self, statement: str, *values: Any) -> list[Any]:
        with closing(self._opened()) as database, database:
            return database.execute(statement, values).fetchall()

    def _changed(self, statement: str, *values: Any) -> bool:
        with closing(self._opened()) as database, database:
            return database.execute(statement, values).rowcount > 0

    def _opened(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self._config.toy_memory, timeout=5.0)
            database.executescript(_TABLES)
        except sqlite3.Error as error:
            raise UnavailableError(f"memory: {type(error).__name__}", condition="MEMORY_UNAVAILABLE") from None
        return database
