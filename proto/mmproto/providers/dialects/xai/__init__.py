"""What xAI has of its own beside OpenAI's dialects."""
