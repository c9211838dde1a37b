"""A row's state as a document: identity, text, chunks. Pure."""
