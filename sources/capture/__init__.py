"""What captures a pipeline's tables: Debezium connectors and DMS tasks, rendered, applied and checked."""
