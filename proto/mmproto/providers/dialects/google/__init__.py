"""Gemini on AI Studio and Vertex AI, and what else Vertex AI serves."""
