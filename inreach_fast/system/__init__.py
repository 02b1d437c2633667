"""What tasks share with their surroundings: memory, threads, and the caller who watches their progress."""
