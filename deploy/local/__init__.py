"""The whole system on one machine: its configuration files, its processes, its distances."""
