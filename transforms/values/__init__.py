"""Column values in canonical form, by type. Pure."""
