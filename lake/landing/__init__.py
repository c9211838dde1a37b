"""Records into `changes` and `rejects`."""
