"""One command a table in the README: floors, peers and figures, each ending in one line of JSON."""
