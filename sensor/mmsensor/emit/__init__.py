"""Where measured calls go: the spool for the pipeline or for Kafka, or a file of JSON lines."""
