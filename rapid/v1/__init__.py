"""Generated from proto/rapid/v1 by `make proto`; never edited by hand."""
