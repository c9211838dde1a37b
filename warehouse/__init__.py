"""A warehouse fed from `changes`: Redshift, by guarded loads a minute apart."""
