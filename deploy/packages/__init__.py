"""`isochrone package`: build, inspect, verify, sign, quantize, prune, distill."""
