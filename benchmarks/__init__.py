"""How fast the suite is: one script a question. See README.md for the numbers."""
