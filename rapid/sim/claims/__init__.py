"""The results of the RAPID paper (arXiv 2601.12241), measured and judged one by one.

table     the claims; runs: what has to be simulated for them; rules: when one counts as reproduced
claims    from the claims to the findings
"""
