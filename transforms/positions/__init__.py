"""Source positions and the sequence made of them. Pure."""
