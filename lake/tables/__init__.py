"""The current rows of each table, as Delta: merged from landed changes, typed, evolving."""
