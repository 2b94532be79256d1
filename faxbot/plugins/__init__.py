"""The door for plugins, ours and everybody's: base classes, manifests, and the loader over entry points."""
