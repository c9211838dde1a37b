"""Stand-ins for services that run on AWS alone."""
