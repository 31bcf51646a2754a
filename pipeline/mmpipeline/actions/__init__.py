"""What the pipeline tells the routers over Kafka: how far budgets are spent, and what calls cost.

States, not events: each message is all that holds of one tenant or one provider, on a compacted topic, so
that a router that starts reads what holds now and nothing of how it came about.
"""
