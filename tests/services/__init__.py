"""The real services as fixtures: one of each for a whole run, started by the first test that asks."""
