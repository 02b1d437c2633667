"""Matrix products of torch, on any of its devices."""
