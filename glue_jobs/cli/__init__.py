"""The `ragstream` command: one module a command."""
