"""What the router decides: the law's permits, then filters, scores in seconds and a pick."""
