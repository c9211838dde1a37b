"""What a Glue 6.0 job is made of, built into a folder by `make glue-package`."""
