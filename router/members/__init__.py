"""Which endpoints have joined: enrolment, leases, and the store that survives a restart."""
