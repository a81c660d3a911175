"""What the smaller verbs of the command line do."""
