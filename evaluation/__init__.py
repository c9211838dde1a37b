"""How good search and answers are on labelled questions, and the thresholds that follow from it."""
