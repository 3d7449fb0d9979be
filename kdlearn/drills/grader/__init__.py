"""The machine that grades drills: it compares, names mistakes, and runs a reader's code where it can do no harm."""
