"""A memory in one DocumentDB collection: a document a message, each claim and each end one insert of a unique `_id`.

`_id`s: `OWNER/m/SESSION/NNNNNNNNNN.1` (question) and `.2` (answer), `OWNER/profile`, `session/SESSION`. OWNER and SESSION are
digests. A user's sessions are read from the questions, which have the owner in their `_id`: none can be missed. A rating is a
field of its answer. `expires_at` has a TTL index.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from memory.documentdb.client import Document, MemoryCollection
from memory.documentdb.config import DocumentDBMemoryConfig
from memory.protocol import Deleted, Entry, Item, Place, StoredProfile, StoredRating, in_order
from schemas.errors import ConfigurationError

_DIGITS = 10
_TTL_INDEX = "expires"


class DocumentDBStore:
    """A `MemoryStore`. An answer whose session is deleted while it is inserted is deleted by its own writer."""

    def __init__(self, config: DocumentDBMemoryConfig) -> None:
        """Connects on first use."""
        self._config = config
        self._collection = MemoryCollection(config)

    def check(self) -> None:
        """Create the TTL index where it is missing, or validate it."""
        with self._collection.opened() as collection:
            for index in collection.list_indexes():
                if list(index["key"]) == ["expires_at"]:
                    if index.get("expireAfterSeconds") == 0:
                        return
                    raise ConfigurationError(
                        f"memory: the index {index['name']} of {self._config.collection} does not delete what expired",
                        condition="MEMORY_INVALID", hint="drop it; `ragstream check` creates one with expireAfterSeconds: 0",
                    )  # fmt: skip
            collection.create_index("expires_at", name=_TTL_INDEX, expireAfterSeconds=0)

    def recent(self, place: Place, most: int) -> list[Item]:
        """The last items, by one query over `_id`."""
        with self._collection.opened() as collection:
            documents = list(collection.find(_under(_of(place))).sort("_id", -1).limit(most))
        return in_order([_item(document) for document in documents])

    def turn(self, place: Place, number: int) -> list[Item]:
        """The items of one turn."""
        with self._collection.opened() as collection:
            documents = list(
                collection.find({"_id": {"$in": [_id(place, number, is_answer=part) for part in (False, True)]}})
            )
        return in_order([_item(document) for document in documents])

    def turn_named(self, place: Place, turn_id: str) -> int | None:
        """The turn of a turn id, which its question has."""
        with self._collection.opened() as collection:
            query = {**_under(_of(place)), "turn_id": turn_id}
            document = collection.find_one(query, {"turn": 1}, sort=[("_id", -1)])
        return int(document["turn"]) if document else None

    def claim(self, place: Place, question: Item, entry: Entry, turn_id: str | None) -> bool:
        """Insert the question, which has the entry and the turn id in it."""
        more = {"session": place.session, "entry": entry.body, **({"turn_id": turn_id} if turn_id is not None else {})}
        return self._inserted(_document(place, question) | more)

    def hold(self, place: Place, number: int, seen: str, token: str, until: float) -> bool:
        """Update the question where it has that token, unless an answer stands; an answer needs the question's token."""
        with self._collection.opened() as collection:
            if collection.find_one({"_id": _id(place, number, is_answer=True)}, {"_id": 1}) is not None:
                return False
            update = {"$set": {"token": token, "held_until": until}}
            return (
                collection.update_one({"_id": _id(place, number, is_answer=False), "token": seen}, update).matched_count
                > 0
            )

    def settle(self, place: Place, answer: Item) -> bool:
        """Insert the answer where none stands and the question has its token; delete it if the question went meanwhile."""
        asked = {"_id": _id(place, answer.turn, is_answer=False), "token": answer.token}
        with self._collection.opened() as collection:
            if collection.find_one(asked, {"_id": 1}) is None or not self._inserted(_document(place, answer)):
                return False
            if collection.find_one({"_id": asked["_id"]}, {"_id": 1}) is not None:
                return True
            collection.delete_one({"_id": _id(place, answer.turn, is_answer=True), "token": answer.token})
        return False

    def entries(self, owner: str) -> list[Entry]:
        """The last question of each session."""
        fields = dict.fromkeys(("session", "turn", "entry", "expires_at"), 1)
        last: dict[str, Document] = {}
        with self._collection.opened() as collection:
            for document in collection.find({**_under(f"{owner}/m/"), "entry": {"$exists": True}}, fields):
                if document["turn"] >= last.get(document["session"], document)["turn"]:
                    last[document["session"]] = document
        return [
            Entry(name, int(item["turn"]), item["entry"], _seconds(item["expires_at"])) for name, item in last.items()
        ]

    def rate(self, place: Place, rating: StoredRating) -> bool:
        """Update the answer, whose document has the rating in it."""
        with self._collection.opened() as collection:
            answer = {"_id": _id(place, rating.turn, is_answer=True)}
            return collection.update_one(answer, {"$set": {"rating": rating.body}}).matched_count > 0

    def ratings(self, place: Place) -> list[StoredRating]:
        """The ratings, by one query without the messages."""
        fields = dict.fromkeys(("turn", "rating", "expires_at"), 1)
        with self._collection.opened() as collection:
            rated = list(collection.find({**_under(_of(place)), "rating": {"$exists": True}}, fields).sort("_id", 1))
        return [StoredRating(int(rating["turn"]), rating["rating"], _seconds(rating["expires_at"])) for rating in rated]

    def delete(self, place: Place) -> Deleted:
        """Delete the session's documents, first those that are rated."""
        documents = _under(_of(place))
        with self._collection.opened() as collection:
            rated = collection.delete_many({**documents, "rating": {"$exists": True}}).deleted_count
            return Deleted(rated + collection.delete_many(documents).deleted_count, rated)

    def register(self, session: str, owner: str, expires_at: int, now: float) -> str:
        """Insert the note, or replace one that expired or is on the same owner."""
        from pymongo.errors import DuplicateKeyError

        name = f"session/{session}"
        free = {
            "_id": name,
            "$or": [{"owner": owner}, {"expires_at": {"$lte": dt.datetime.fromtimestamp(now, dt.UTC)}}],
        }
        update = {"$set": {"owner": owner, "expires_at": _date(expires_at)}}
        with self._collection.opened() as collection:
            try:
                collection.update_one(free, update, upsert=True)
            except DuplicateKeyError:
                return self.registered(session) or owner
        return owner

    def registered(self, session: str) -> str | None:
        """The note."""
        with self._collection.opened() as collection:
            document = collection.find_one({"_id": f"session/{session}"})
        return str(document["owner"]) if document else None

    def unregister(self, session: str, owner: str) -> None:
        """Delete the note where it is on this owner."""
        with self._collection.opened() as collection:
            collection.delete_one({"_id": f"session/{session}", "owner": owner})

    def profile(self, owner: str) -> StoredProfile | None:
        """The profile."""
        with self._collection.opened() as collection:
            document = collection.find_one({"_id": f"{owner}/profile"})
        return StoredProfile(int(document["version"]), document["body"]) if document else None

    def put_profile(self, owner: str, body: str, seen: int) -> bool:
        """Insert the first version, or update where the stored one was seen."""
        if not seen:
            return self._inserted({"_id": f"{owner}/profile", "version": 1, "body": body})
        with self._collection.opened() as collection:
            update = {"$set": {"version": seen + 1, "body": body}}
            return collection.update_one({"_id": f"{owner}/profile", "version": seen}, update).matched_count > 0

    def delete_profile(self, owner: str) -> bool:
        """Delete the profile."""
        with self._collection.opened() as collection:
            return collection.delete_one({"_id": f"{owner}/profile"}).deleted_count > 0

    def close(self) -> None:
        """Close connections."""
        self._collection.close()

    def _inserted(self, document: Document) -> bool:
        from pymongo.errors import DuplicateKeyError

        with self._collection.opened() as collection:
            try:
                collection.insert_one(document)
            except DuplicateKeyError:
                return False
        return True


def _of(place: Place) -> str:
    return f"{place.owner}/m/{place.session}/"


def _id(place: Place, number: int, *, is_answer: bool) -> str:
    return f"{_of(place)}{number:0{_DIGITS}}.{2 if is_answer else 1}"


def _under(prefix: str) -> dict[str, Any]:
    """The documents whose `_id` has a prefix that ends in a slash; the character behind `/` is `0`."""
    return {"_id": {"$gte": prefix, "$lt": f"{prefix[:-1]}0"}}


def _document(place: Place, item: Item) -> Document:
    return {
        "_id": _id(place, item.turn, is_answer=item.is_answer), "turn": item.turn, "token": item.token, "body": item.body,
        "expires_at": _date(item.expires_at), "held_until": item.held_until,
    }  # fmt: skip


def _item(document: Mapping[str, Any]) -> Item:
    return Item(
        int(document["turn"]), document["token"], document["body"], _seconds(document["expires_at"]),
        is_answer=document["_id"].endswith(".2"), held_until=float(document["held_until"]),
    )  # fmt: skip


def _date(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _seconds(date: dt.datetime) -> int:
    return round(date.timestamp())
