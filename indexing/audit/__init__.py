"""A store compared with what the lake says it should hold."""
