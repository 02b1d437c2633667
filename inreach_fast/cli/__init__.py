"""The command line `inreach`.

`commands` has one file for each command: `DESCRIPTION`, `add_options(parser)` and `run(args, console)`, which returns
an exit code, or None for success. `main` imports that file and no other, so that
`inreach --help` is quick.
"""
