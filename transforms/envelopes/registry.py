"""Values that a schema registry's serializer framed: a few bytes before the text.

Confluent's wire format is a zero and a schema id of 4 bytes, Apicurio's own one of 8; AWS Glue Schema Registry's is a 3, the
compression (0: none, 5: zlib) and the 16 bytes of a schema version's id.
"""

from __future__ import annotations

_HEADERS = {0: ("Confluent's or Apicurio's", (5, 9)), 3: ("AWS Glue Schema Registry's", (18,))}


_MESSAGE = (
    "the value has {} framing and is not plain JSON in it (Avro, Protobuf or compressed); let the connector write JSON: "
    "key.converter and value.converter org.apache.kafka.connect.json.JsonConverter"
)


class FramedError(ValueError):
    """The value is framed, and what it frames is not JSON; the message names the framing and the setting that mends it."""


def unframed(data: bytes) -> bytes:
    """The JSON text of a value or a key, without the header that a JSON Schema converter writes; raises FramedError."""
    if data[:1] == b"{" or not data or data[0] not in _HEADERS:
        return data
    registry, lengths = _HEADERS[data[0]]
    if not (data[0] == 3 and data[1:2] == b"\5"):
        for length in lengths:
            if data[length : length + 1] == b"{":
                return data[length:]
    raise FramedError(_MESSAGE.format(registry))
