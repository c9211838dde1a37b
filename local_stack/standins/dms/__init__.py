"""A stand-in for AWS DMS: logical replication of PostgreSQL as DMS writes it to Kinesis."""
