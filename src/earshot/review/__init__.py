"""People who hear detections and say what is true: what they are asked first, what they said, and what trains on it."""
