"""Where measured calls go: the spool for the pipeline, or a file of JSON lines."""
