"""Numbered revisions, one change each; HEAD beside env.py names the newest, so that two at once collide in git."""
