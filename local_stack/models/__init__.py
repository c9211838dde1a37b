"""The models behind the local model endpoint: MiniLM for vectors, SmolLM2 for text, and an instant stand-in."""
