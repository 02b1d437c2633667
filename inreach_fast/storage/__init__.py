"""What a fit and a model keep, in memory or on disk."""
