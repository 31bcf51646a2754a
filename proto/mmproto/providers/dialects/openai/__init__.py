"""OpenAI's APIs, and those of everyone who copied them."""
