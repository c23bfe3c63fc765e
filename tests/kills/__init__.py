"""The kill matrix: real daemons, hit by every fault at every step, while a real ledger keeps the books."""
