"""One command for each table of docs/figures.md: floors, peers and figures, each ending in one line of JSON."""
