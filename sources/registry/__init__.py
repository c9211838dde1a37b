"""Schema registries: where the schemas of framed values are looked up, and remembered by each process."""
