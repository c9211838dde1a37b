"""Index versions of a store: one for each embedding model, all written until readers have moved."""
