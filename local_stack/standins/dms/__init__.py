"""A stand-in for AWS DMS: the logs of PostgreSQL and MariaDB as DMS writes them to Kinesis."""
