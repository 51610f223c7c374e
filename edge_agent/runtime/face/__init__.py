"""HTTP in front of the runtime: inference, generation, load reports."""
