"""Where model packages come from and how they come onto the disk: whole and checked, or not at all.

`repository` is what administrators ask; it joins the pool with `pulls`, which bring packages from a
source into the `store`, and with the `activation`, which remembers the version that serves.
"""
