"""What the commands do beside running a pipeline."""
