"""Faults on demand: refused, slow and throttled connections."""
