"""Spark sessions, on a laptop and as Glue scripts."""
