"""What is there: bounded readers of a persist directory. They read; they never judge or write."""
