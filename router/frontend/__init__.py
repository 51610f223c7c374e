"""The router's HTTP faces: inference, enrolment and administration."""
