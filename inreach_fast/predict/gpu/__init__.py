"""Predictions on a GPU: network, search and map in one stream."""
