"""Memory of models and runs: measured, shared, and given back."""
