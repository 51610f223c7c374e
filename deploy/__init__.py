"""How Isochrone is put on machines: the command line and the whole system on one machine."""
