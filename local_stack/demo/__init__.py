"""The demo: a committed row becomes a cited answer."""
