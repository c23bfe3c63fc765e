"""Whatever comes in from outside: hypothesis makes it up, and each target is shown to catch a planted bug."""
