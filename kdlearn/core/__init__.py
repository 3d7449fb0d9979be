"""What everything else may use: checks, numerical habits, inputs and files."""
