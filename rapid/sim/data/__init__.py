"""Request traces, as package data; README.md beside this says whose they are."""
