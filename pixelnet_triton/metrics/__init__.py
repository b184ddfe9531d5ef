"""The metrics of the four tasks."""
