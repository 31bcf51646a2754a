"""The way between the processes over Apache Kafka: topics, settings, messages; shared by all products."""
