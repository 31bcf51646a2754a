"""Holds every number that is kept beside the charges against the charges themselves."""
