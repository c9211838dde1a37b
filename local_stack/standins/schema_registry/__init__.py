"""The stand-in for Confluent's Schema Registry."""
