"""One call: deadline, slot, batch, cost."""
