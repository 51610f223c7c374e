"""What the router knows of its endpoints, and who may write it."""
