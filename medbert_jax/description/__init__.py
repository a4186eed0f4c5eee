"""What the patients look like: Tables 2 and 3, distributions, timelines."""
