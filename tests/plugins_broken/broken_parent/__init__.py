"""The manifest below is read without running this."""

raise ZeroDivisionError("in the parent package")
