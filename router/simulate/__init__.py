"""A world in virtual time, to hold routing rules against each other before one is relied on."""
