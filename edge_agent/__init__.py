"""The edge agent: a daemon that runs light models near their users."""
