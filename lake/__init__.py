"""The lake: records as they came, current tables typed as at the source, and paid-for vectors; all Delta."""
