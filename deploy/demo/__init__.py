"""Six scenes on a whole system, played with real images and checked against its own logs."""
