"""The jobs, the runtime that keeps them running, and the `ragstream` command."""
