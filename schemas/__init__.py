"""Data contracts: what travels between the parts, and the errors they raise."""
