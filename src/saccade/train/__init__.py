"""Training: recipes of stages as data, run by one loop."""
