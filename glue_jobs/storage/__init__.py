"""Files and leases of checkpoints and lakes, on disks and on S3."""
