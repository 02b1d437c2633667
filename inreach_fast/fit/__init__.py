"""The order of a fit, and how a fitted model grows."""
