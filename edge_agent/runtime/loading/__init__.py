"""From package to warm model: load, warm-up, choice of variant, proof of independent rows."""
