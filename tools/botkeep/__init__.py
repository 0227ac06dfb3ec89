"""botkeep: an LLM assistant's hand on a fleet of trading bots."""

__version__ = "0.1.0"
