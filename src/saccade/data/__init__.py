"""Data: the rendered world, and samples made into batches."""
