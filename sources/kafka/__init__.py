"""Kafka and Amazon MSK as a source."""
