"""The simulator's command line: what is asked, who works on it, and how the answer looks.

options      the options of run, compare and sweep as a question
question     the question as scenarios and requests
workers      runs side by side, one process per core
progress     how far they are, on stderr
run, compare, sweep, trace, reproduce    the verbs, each with a click command named `command`
report, why  the answer in tables and in sentences
pictures     the answer as PNG
"""
