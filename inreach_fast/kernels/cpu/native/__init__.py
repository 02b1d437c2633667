"""The compiled engine, `inreach_fast._core`."""
