"""The command line `inreach`.

main.py         parser, dispatch, errors -> exit codes
exit_codes.py   the codes a script can rely on
options.py      command-line options -> parameters of the estimator
console.py      what goes to stdout, what to stderr; progress.py: bars
outputs.py      whole files or none, output names that cannot collide
commands/       one file for each command
pictures/       heat maps, overlays and sheets, drawn with Pillow and NumPy alone
"""
