"""A stand-in for Amazon Redshift."""
