"""A memory in one DynamoDB table: an item a message, each turn's claim and end a transaction of conditional writes.

Keys: `OWNER#SESSION` / `tNNNNNNNNNN.1` (question) and `.2` (answer), `fNNNNNNNNNN` (rating), `iTURNID`; `OWNER` / `sSESSION`
(entry) and `profile`; `session#SESSION` / `owner`. OWNER, SESSION and TURNID are digests. `expires_at` is the table's TTL
attribute.
"""

from __future__ import annotations

from typing import Any

from memory.dynamodb.client import RIGHTS, Attributes, Refused, Table
from memory.dynamodb.config import DynamoDBMemoryConfig
from memory.protocol import Deleted, Entry, Item, Place, StoredProfile, StoredRating, in_order
from schemas.errors import ConfigurationError, UnavailableError

TTL = "expires_at"
_DIGITS = 10
_NEW = "attribute_not_exists(pk)"
_WAIT_SECONDS = 60


class DynamoDBStore:
    """A `MemoryStore`. Reads are consistent; a condition that another request breaks is a False, never a lost write."""

    def __init__(self, config: DynamoDBMemoryConfig) -> None:
        """Connects on first use."""
        self._config = config
        self._table = Table(config)

    def check(self) -> None:
        """Create the table, or validate its keys and its TTL attribute."""
        table = self._config.table
        try:
            with self._table.translated():
                described = self._table.client.describe_table(TableName=table)["Table"]
        except ConfigurationError as error:
            if error.condition != "MEMORY_MISSING":
                raise
            self._create()
        else:
            keys = {key["AttributeName"]: key["KeyType"] for key in described.get("KeySchema", ())}
            types = {
                attribute["AttributeName"]: attribute["AttributeType"]
                for attribute in described.get("AttributeDefinitions", ())
            }
            if keys != {"pk": "HASH", "sk": "RANGE"} or {types.get("pk"), types.get("sk")} != {"S"}:
                raise ConfigurationError(
                    f"memory: the table {table} has other keys", condition="MEMORY_INVALID",
                    hint="it needs pk (string, HASH) and sk (string, RANGE); `ragstream check` creates a table of another name",
                )  # fmt: skip
        self._check_ttl()

    def recent(self, place: Place, most: int) -> list[Item]:
        """The last items, by one query."""
        return in_order([_item(item) for item in self._table.query(_of(place), "t", most=most, newest=True)])

    def turn(self, place: Place, number: int) -> list[Item]:
        """The items of one turn, by one query."""
        return in_order([_item(item) for item in self._table.query(_of(place), f"t{number:0{_DIGITS}}.")])

    def turn_named(self, place: Place, turn_id: str) -> int | None:
        """The turn of a turn id, by its own item."""
        item = self._table.get(_key(_of(place), f"i{turn_id}"))
        return int(item["turn"]["N"]) if item else None

    def claim(self, place: Place, question: Item, entry: Entry, turn_id: str | None) -> bool:
        """One transaction: the question where none stands, the entry, the turn id."""
        writes: list[Attributes] = [
            {"Item": _written(place, question), "ConditionExpression": _NEW},
            {"Item": _key(place.owner, f"s{entry.session}") | {
                "turn": _number(entry.turn), "body": {"S": entry.body}, TTL: _number(entry.expires_at)}},
        ]  # fmt: skip
        if turn_id is not None:
            named = _key(_of(place), f"i{turn_id}") | {
                "turn": _number(question.turn),
                TTL: _number(question.expires_at),
            }
            writes.append({"Item": named})
        return self._succeeds(*(("Put", write) for write in writes))

    def hold(self, place: Place, number: int, seen: str, token: str, until: float) -> bool:
        """One transaction: the question's token, unless an answer stands."""
        question, answer = (_key(_of(place), _sort(number, is_answer=part)) for part in (False, True))
        update = {
            "Key": question, "UpdateExpression": "SET #t = :t, held_until = :u", "ConditionExpression": "#t = :s",
            "ExpressionAttributeNames": {"#t": "token"},
            "ExpressionAttributeValues": {":t": {"S": token}, ":s": {"S": seen}, ":u": _number(until)},
        }  # fmt: skip
        return self._succeeds(("Update", update), ("ConditionCheck", {"Key": answer, "ConditionExpression": _NEW}))

    def settle(self, place: Place, answer: Item) -> bool:
        """One transaction: the answer where none stands, beside a question of the same token."""
        asked = {
            "Key": _key(_of(place), _sort(answer.turn, is_answer=False)), "ConditionExpression": "#t = :t",
            "ExpressionAttributeNames": {"#t": "token"}, "ExpressionAttributeValues": {":t": {"S": answer.token}},
        }  # fmt: skip
        return self._succeeds(
            ("ConditionCheck", asked), ("Put", {"Item": _written(place, answer), "ConditionExpression": _NEW})
        )

    def entries(self, owner: str) -> list[Entry]:
        """The entries of an owner, by one query."""
        return [_entry(item) for item in self._table.query(owner, "s")]

    def rate(self, place: Place, rating: StoredRating) -> bool:
        """One transaction: the rating, beside its answer."""
        item = _key(_of(place), f"f{rating.turn:0{_DIGITS}}") | {
            "body": {"S": rating.body}, TTL: _number(rating.expires_at),
        }  # fmt: skip
        answer = {
            "Key": _key(_of(place), _sort(rating.turn, is_answer=True)), "ConditionExpression": "attribute_exists(pk)",
        }  # fmt: skip
        return self._succeeds(("ConditionCheck", answer), ("Put", {"Item": item}))

    def ratings(self, place: Place) -> list[StoredRating]:
        """The ratings, by one query."""
        return [
            StoredRating(int(item["sk"]["S"][1:]), item["body"]["S"], int(item[TTL]["N"]))
            for item in self._table.query(_of(place), "f")
        ]

    def delete(self, place: Place) -> Deleted:
        """Delete messages, then ratings and turn ids, then the entry if no turn was claimed meanwhile; else again."""
        deleted = dict.fromkeys("tfi", 0)
        entry_key = _key(place.owner, f"s{place.session}")
        for _ in range(100):
            entry = self._table.get(entry_key)
            for part in deleted:  # a rating needs its answer, so none comes once that is gone
                keys = [dict(item) for item in self._table.query(_of(place), part, names=("pk", "sk"))]
                self._table.delete(keys)
                deleted[part] += len(keys)
            if entry is None or self._delete_where(entry_key, "turn", entry["turn"]):
                return Deleted(deleted["t"], deleted["f"])
        raise UnavailableError(
            "memory: turns of the session were claimed while it was deleted",
            condition="SESSION_BUSY",
            hint="delete it again",
        )

    def register(self, session: str, owner: str, expires_at: int, now: float) -> str:
        """A conditional put of the note."""
        write = {
            "Item": _key(f"session#{session}", "owner") | {"owner": {"S": owner}, TTL: _number(expires_at)},
            "ConditionExpression": f"{_NEW} OR #o = :o OR {TTL} <= :n", "ExpressionAttributeNames": {"#o": "owner"},
            "ExpressionAttributeValues": {":o": {"S": owner}, ":n": _number(now)},
        }  # fmt: skip
        return owner if self._succeeds(("Put", write)) else self.registered(session) or owner

    def registered(self, session: str) -> str | None:
        """The note."""
        item = self._table.get(_key(f"session#{session}", "owner"))
        return item["owner"]["S"] if item else None

    def unregister(self, session: str, owner: str) -> None:
        """A conditional delete of the note."""
        self._delete_where(_key(f"session#{session}", "owner"), "owner", {"S": owner})

    def profile(self, owner: str) -> StoredProfile | None:
        """The profile."""
        item = self._table.get(_key(owner, "profile"))
        return StoredProfile(int(item["version"]["N"]), item["body"]["S"]) if item else None

    def put_profile(self, owner: str, body: str, seen: int) -> bool:
        """A conditional put."""
        item = _key(owner, "profile") | {"version": _number(seen + 1), "body": {"S": body}}
        condition: dict[str, Any] = {"ConditionExpression": _NEW}
        if seen:
            condition = {
                "ConditionExpression": "#v = :v", "ExpressionAttributeNames": {"#v": "version"},
                "ExpressionAttributeValues": {":v": _number(seen)},
            }  # fmt: skip
        return self._succeeds(("Put", {"Item": item} | condition))

    def delete_profile(self, owner: str) -> bool:
        """A conditional delete."""
        return self._succeeds(
            ("Delete", {"Key": _key(owner, "profile"), "ConditionExpression": "attribute_exists(pk)"})
        )

    def close(self) -> None:
        """Close connections."""
        self._table.close()

    def _succeeds(self, *writes: tuple[str, dict[str, Any]]) -> bool:
        try:
            self._table.transact(*writes)
        except Refused:
            return False
        return True

    def _delete_where(self, key: Attributes, name: str, value: Attributes) -> bool:
        """Delete an item if an attribute has a value; True if it is gone."""
        condition = {
            "ConditionExpression": f"{_NEW} OR #n = :v", "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": value},
        }  # fmt: skip
        return self._succeeds(("Delete", {"Key": key} | condition))

    def _create(self) -> None:
        table, client = self._config.table, self._table.client
        with self._table.translated():
            client.create_table(
                TableName=table, BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            )  # fmt: skip
            client.get_waiter("table_exists").wait(
                TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": _WAIT_SECONDS}
            )
            client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL})

    def _check_ttl(self) -> None:
        with self._table.translated():
            ttl = self._table.client.describe_time_to_live(TableName=self._config.table)["TimeToLiveDescription"]
        if ttl.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"} and ttl.get("AttributeName") == TTL:
            return
        raise ConfigurationError(
            f"memory: the table {self._config.table} deletes nothing by its TTL attribute {TTL}", condition="MEMORY_INVALID",
            hint=f"aws dynamodb update-time-to-live --table-name {self._config.table} "
            f"--time-to-live-specification Enabled=true,AttributeName={TTL}; {RIGHTS}",
        )  # fmt: skip


def _of(place: Place) -> str:
    return f"{place.owner}#{place.session}"


def _sort(number: int, *, is_answer: bool) -> str:
    return f"t{number:0{_DIGITS}}.{2 if is_answer else 1}"


def _key(partition: str, sort: str) -> Attributes:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def _number(value: float) -> Attributes:
    return {"N": repr(value)}


def _written(place: Place, item: Item) -> Attributes:
    return _key(_of(place), _sort(item.turn, is_answer=item.is_answer)) | {
        "token": {"S": item.token}, "body": {"S": item.body}, TTL: _number(item.expires_at),
        "held_until": _number(item.held_until),
    }  # fmt: skip


def _item(attributes: Attributes) -> Item:
    sort = attributes["sk"]["S"]
    number, part = int(sort[1 : 1 + _DIGITS]), sort[-1]
    return Item(
        number, attributes["token"]["S"], attributes["body"]["S"], int(attributes[TTL]["N"]), is_answer=part == "2",
        held_until=float(attributes["held_until"]["N"]),
    )  # fmt: skip


def _entry(attributes: Attributes) -> Entry:
    return Entry(
        attributes["sk"]["S"][1:], int(attributes["turn"]["N"]), attributes["body"]["S"], int(attributes[TTL]["N"])
    )
