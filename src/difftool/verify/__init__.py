"""A way to run a bundle against another: row by row, over a whole run, and down to a node."""
