"""Rows folded from `changes` without a merge."""
