"""Where records come from: one module a stream, all yielding `schemas.records.RECORD_COLUMNS`."""
