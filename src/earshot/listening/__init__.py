"""Trained runs that hear recordings of the world: any folder, of any size, to events that other programs open."""
