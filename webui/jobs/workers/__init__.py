"""What draws the orders of jobs, each in a place of its own."""
