"""What `rapidd --check` and `rapidctl doctor` find: facts in, findings out. The shells gather and print, no more."""
