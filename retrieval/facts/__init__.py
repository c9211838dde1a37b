"""Facts of the warehouse in answers: which are relevant, with which values, and as sources of a prompt."""
