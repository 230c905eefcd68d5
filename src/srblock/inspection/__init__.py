"""Looking inside a trained network: what it recalls, what it costs."""
