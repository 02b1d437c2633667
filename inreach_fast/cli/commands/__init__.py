"""One file for each command; see `inreach_fast.cli`."""
