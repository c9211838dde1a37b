"""CDC envelopes (Debezium, AWS DMS) decoded to changes. Pure."""
