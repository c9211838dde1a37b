"""A pipeline's configuration: read, validated, explained."""
