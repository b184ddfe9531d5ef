"""Drop-in replacements for what other code bases call."""
