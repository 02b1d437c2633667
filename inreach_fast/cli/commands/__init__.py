"""One file for each command: `DESCRIPTION`, `add_options(parser)`, and `run(args, console)`.

`run` returns an exit code, or None for success.
"""
