"""A stand-in for Amazon DocumentDB."""
