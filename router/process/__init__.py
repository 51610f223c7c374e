"""What every process of ours needs: configuration, log, metrics, listener, signals."""
