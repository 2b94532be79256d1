"""What must never happen, looked for in any order of things: a fax sent twice, lost, or told wrongly."""
