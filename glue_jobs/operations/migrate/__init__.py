"""Moving the stores to another embedding model."""
