"""What grades drills: it compares, names mistakes, and runs code where it can do no harm."""
