"""Two-stage multilingual alignment training on one GPU."""
