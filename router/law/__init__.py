"""The residency law: `regions.yaml`, its checks, tenants and their keys, and the permit."""
