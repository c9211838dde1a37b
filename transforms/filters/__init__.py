"""Filters on metadata: values as ordered text, conditions on them, and how they are written. Pure, the same for every store."""
