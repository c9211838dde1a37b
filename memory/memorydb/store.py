"""A memory in MemoryDB: a key a message with its own expiry, each claim and each end one script.

Keys, all of an owner in one slot: `PREFIX:{OWNER}:SESSION:N.1` (question), `.2` (answer) and `.3` (rating),
`PREFIX:{OWNER}:SESSION` (the last turn's number), `PREFIX:{OWNER}:SESSION:ids` (turn ids), `PREFIX:{OWNER}:sessions` (entries),
`PREFIX:{OWNER}:profile`; and `PREFIX:owner:SESSION`. OWNER and SESSION are digests. A script compares a value with the one that
was read, and writes.
"""

from __future__ import annotations

import json
import time
import uuid
from itertools import batched
from typing import Any

from memory.memorydb.client import Cluster
from memory.memorydb.config import MemoryDBConfig
from memory.protocol import Deleted, Entry, Item, Place, StoredProfile, StoredRating, in_order
from schemas.errors import ConfigurationError, UnavailableError

_CLAIM = """
local function keep(key)
  if redis.call('PTTL', key) == -1 then redis.call('EXPIREAT', key, ARGV[3]) else redis.call('EXPIREAT', key, ARGV[3], 'GT') end
end
if redis.call('EXISTS', KEYS[1]) == 1 or tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EXAT', ARGV[4])
redis.call('SET', KEYS[2], ARGV[1], 'KEEPTTL')
redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[4], ARGV[7], ARGV[1]) keep(KEYS[4]) end
keep(KEYS[2]) keep(KEYS[3])
return 1"""
_WRITE_BESIDE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SET', KEYS[tonumber(ARGV[2])], ARGV[3], 'EXAT', ARGV[4])
return 1"""
"""Writes a question again, or its answer, while the question is what was read and no answer stands."""
_RATE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EXAT', ARGV[2])
return 1"""
_DELETE_ENTRY = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return 1"""
_REGISTER = """
local noted = redis.call('HMGET', KEYS[1], 'owner', 'until')
if noted[1] and noted[1] ~= ARGV[1] and tonumber(noted[2]) > tonumber(ARGV[3]) then return noted[1] end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', ARGV[2])
redis.call('EXPIREAT', KEYS[1], ARGV[2])
return ARGV[1]"""
_UNREGISTER = "if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_SET_IF = (
    "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2]) return 1"
)
_DROP_ENTRY = (
    "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end return 0"
)
_CHECK_SECONDS = 60
"""How long a check that is killed leaves something."""
_AT_ONCE = 500
"""Keys of one command."""
_EVICTING = "allkeys"


class MemoryDBStore:
    """A `MemoryStore`. Valkey deletes what expires by itself, to the second."""

    def __init__(self, config: MemoryDBConfig) -> None:
        """Connects on first use."""
        self._prefix = config.prefix
        self._cluster = Cluster(config)

    def check(self) -> None:
        """Keep a turn, a profile and a rating, and delete them, and validate that the cluster evicts nothing before it expires.

        So the user has every right that is needed; raises ConfigurationError with all of them where one is missing.
        """
        self._try_everything(Place(uuid.uuid4().hex, uuid.uuid4().hex), time.time())
        with self._cluster.opened() as client:
            info = client.info("memory", target_nodes="primaries")
        nodes = info.values() if isinstance(next(iter(info.values()), None), dict) else [info]
        policies = {str(node.get("maxmemory_policy", "")) for node in nodes}
        if any(policy.startswith(_EVICTING) for policy in policies):
            raise ConfigurationError(
                f"memory: the cluster evicts keys when its memory is full ({', '.join(sorted(policies))})",
                condition="MEMORY_INVALID",
                hint="set maxmemory-policy to noeviction in the cluster's parameter group: a full cluster refuses writes",
            )  # fmt: skip

    def _try_everything(self, place: Place, now: float) -> None:
        expires_at = int(now) + _CHECK_SECONDS
        question, answer = (Item(1, "check", "{}", expires_at, is_answer=part) for part in (False, True))
        self.register(place.session, place.owner, expires_at, now)
        self.claim(place, question, Entry(place.session, 1, "{}", expires_at), "check")
        self.hold(place, 1, "check", "check", now)
        self.settle(place, answer)
        self.rate(place, StoredRating(1, "{}", expires_at))
        self.put_profile(place.owner, "{}", 0)
        self.recent(place, 2)
        self.turn_named(place, "check")
        self.entries(place.owner)
        self.registered(place.session)
        self.delete(place)
        self.delete_profile(place.owner)
        self.unregister(place.session, place.owner)

    def recent(self, place: Place, most: int) -> list[Item]:
        """The last items, by their keys: one command for the number, one for the items."""
        with self._cluster.opened() as client:
            last = int(client.get(self._session(place)) or 0)
            turns = range(max(1, last - most // 2), last + 1)  # the last turn may be a question alone
            names = [(number, part) for number in turns for part in (1, 2)]
            values = client.mget([self._message(place, *name) for name in names]) if names else []
        items = [
            _item(number, part, value) for (number, part), value in zip(names, values, strict=True) if value is not None
        ]
        return in_order(items)[-most:]

    def turn(self, place: Place, number: int) -> list[Item]:
        """The items of one turn, by one command."""
        with self._cluster.opened() as client:
            values = client.mget([self._message(place, number, part) for part in (1, 2)])
        return [_item(number, part, value) for part, value in zip((1, 2), values, strict=True) if value is not None]

    def turn_named(self, place: Place, turn_id: str) -> int | None:
        """The turn of a turn id."""
        with self._cluster.opened() as client:
            number = client.hget(f"{self._session(place)}:ids", turn_id)
        return int(number) if number is not None else None

    def claim(self, place: Place, question: Item, entry: Entry, turn_id: str | None) -> bool:
        """One script: the question where none stands, the number, the entry, the turn id."""
        session = self._session(place)
        keys = (self._message(place, question.turn, 1), session, self._entries(place.owner), f"{session}:ids")
        line = json.dumps([entry.turn, entry.expires_at, entry.body])
        arguments = (
            question.turn, _value(question), entry.expires_at, question.expires_at, entry.session, line, turn_id or "",
        )  # fmt: skip
        return self._ran(_CLAIM, keys, arguments)

    def hold(self, place: Place, number: int, seen: str, token: str, until: float) -> bool:
        """One script: the question again, while it is what was read and no answer stands."""
        raw, question = self._read(place, number)
        if question is None or question.token != seen:
            return False
        renewed = Item(number, token, question.body, question.expires_at, held_until=until)
        return self._write_beside(place, number, raw, 1, renewed)

    def settle(self, place: Place, answer: Item) -> bool:
        """One script: the answer where none stands, while the question is what was read."""
        raw, question = self._read(place, answer.turn)
        if question is None or question.token != answer.token:
            return False
        return self._write_beside(place, answer.turn, raw, 2, answer)

    def entries(self, owner: str) -> list[Entry]:
        """The entries of an owner; those that expired are deleted, as their messages are gone."""
        name, now, kept = self._entries(owner), time.time(), []
        with self._cluster.opened() as client:
            lines: dict[str, str] = client.hgetall(name)
        for session, line in lines.items():
            turn, expires_at, body = json.loads(line)
            if expires_at > now:
                kept.append(Entry(session, turn, body, expires_at))
            else:
                self._ran(_DROP_ENTRY, (name,), (session, line))
        return kept

    def rate(self, place: Place, rating: StoredRating) -> bool:
        """One script: the rating, beside its answer."""
        keys = (self._message(place, rating.turn, 2), self._message(place, rating.turn, 3))
        return self._ran(_RATE, keys, (json.dumps([rating.expires_at, rating.body]), rating.expires_at))

    def ratings(self, place: Place) -> list[StoredRating]:
        """The ratings, by their keys."""
        with self._cluster.opened() as client:
            turns = range(1, int(client.get(self._session(place)) or 0) + 1)
            values = [
                value
                for some in batched(turns, _AT_ONCE)
                for value in client.mget([self._message(place, number, 3) for number in some])
            ]
        stored = ((turn, json.loads(value)) for turn, value in zip(turns, values, strict=True) if value is not None)
        return [StoredRating(turn, body, expires_at) for turn, (expires_at, body) in stored]

    def delete(self, place: Place) -> Deleted:
        """Delete messages by their keys, then ratings, then number, turn ids and entry if no turn was claimed meanwhile."""
        session, messages, ratings = self._session(place), 0, 0
        for _ in range(100):
            with self._cluster.opened() as client:
                last = client.get(session)
                turns = range(1, int(last or 0) + 1)
                messages += self._unlinked(client, [self._message(place, n, part) for n in turns for part in (1, 2)])
                ratings += self._unlinked(client, [self._message(place, n, 3) for n in turns])
            if self._ran(
                _DELETE_ENTRY, (session, f"{session}:ids", self._entries(place.owner)), (last or "", place.session)
            ):
                return Deleted(messages, ratings)
        raise UnavailableError(
            "memory: turns of the session were claimed while it was deleted",
            condition="SESSION_BUSY",
            hint="delete it again",
        )

    def register(self, session: str, owner: str, expires_at: int, now: float) -> str:
        """One script."""
        with self._cluster.opened() as client:
            return str(client.eval(_REGISTER, 1, self._note(session), owner, expires_at, now))

    def registered(self, session: str) -> str | None:
        """The note."""
        with self._cluster.opened() as client:
            owner = client.hget(self._note(session), "owner")
        return None if owner is None else str(owner)

    def unregister(self, session: str, owner: str) -> None:
        """One script."""
        self._ran(_UNREGISTER, (self._note(session),), (owner,))

    def profile(self, owner: str) -> StoredProfile | None:
        """The profile."""
        with self._cluster.opened() as client:
            stored = client.get(self._profile(owner))
        return StoredProfile(*json.loads(stored)) if stored is not None else None

    def put_profile(self, owner: str, body: str, seen: int) -> bool:
        """One script: the profile again, while it is what was read."""
        with self._cluster.opened() as client:
            raw = client.get(self._profile(owner)) or ""
        if (json.loads(raw)[0] if raw else 0) != seen:
            return False
        return self._ran(_SET_IF, (self._profile(owner),), (raw, json.dumps([seen + 1, body])))

    def delete_profile(self, owner: str) -> bool:
        """Delete the profile."""
        with self._cluster.opened() as client:
            return bool(client.unlink(self._profile(owner)))

    def close(self) -> None:
        """Close connections."""
        self._cluster.close()

    @staticmethod
    def _unlinked(client: Any, names: list[str]) -> int:
        return sum(client.unlink(*some) for some in batched(names, _AT_ONCE))

    def _ran(self, script: str, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> bool:
        with self._cluster.opened() as client:
            return bool(client.eval(script, len(keys), *keys, *arguments))

    def _read(self, place: Place, number: int) -> tuple[str, Item | None]:
        with self._cluster.opened() as client:
            raw = client.get(self._message(place, number, 1))
        return ("", None) if raw is None else (raw, _item(number, 1, raw))

    def _write_beside(self, place: Place, number: int, raw: str, part: int, item: Item) -> bool:
        keys = (self._message(place, number, 1), self._message(place, number, 2))
        return self._ran(_WRITE_BESIDE, keys, (raw, part, _value(item), item.expires_at))

    def _session(self, place: Place) -> str:
        return f"{self._prefix}:{{{place.owner}}}:{place.session}"

    def _message(self, place: Place, number: int, part: int) -> str:
        return f"{self._session(place)}:{number}.{part}"

    def _entries(self, owner: str) -> str:
        return f"{self._prefix}:{{{owner}}}:sessions"

    def _profile(self, owner: str) -> str:
        return f"{self._prefix}:{{{owner}}}:profile"

    def _note(self, session: str) -> str:
        return f"{self._prefix}:owner:{session}"


def _value(item: Item) -> str:
    return json.dumps([item.token, item.expires_at, item.held_until, item.body], ensure_ascii=False)


def _item(number: int, part: int, value: str) -> Item:
    token, expires_at, held_until, body = json.loads(value)
    return Item(number, token, body, expires_at, is_answer=part == 2, held_until=held_until)
