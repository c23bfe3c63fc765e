"""Tests of the command line, against a fake controller that speaks the real protocol."""
