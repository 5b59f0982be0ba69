"""What a pod counts and tells of itself: statistics, metrics, spans."""
