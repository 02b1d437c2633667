"""The command line `inreach`.

main.py         parser, dispatch, errors -> exit codes
exit_codes.py   the codes that scripts can rely on
options.py      options that commands share -> parameters of the estimator, executors
console.py      what goes to stdout, what to stderr; tables.py: numbers and columns
outputs.py      complete files, output names that cannot collide
commands/       one file for each command: DESCRIPTION, add_options(parser), run(args, console)
pictures/       heat maps, overlays and sheets, drawn with Pillow and NumPy

`main` imports the module of the command that is run and no other, so that `inreach --help` is quick.
"""
