"""The services that the distributed shape stands on, each in a folder: for tests and for trying it out."""
