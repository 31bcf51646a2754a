"""How each API asks, answers and counts: one file a dialect, a folder where a maker has many."""
