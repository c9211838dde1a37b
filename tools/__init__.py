"""Developer's tools: nothing here is in the wheel."""
