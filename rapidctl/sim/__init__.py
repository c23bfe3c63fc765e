"""The simulator's command line: what is asked, who works on it, and how the answer looks.

run, compare, sweep, trace, reproduce    the verbs, each with a click command named `command`
options                the options that they share, read and checked
load, question         which requests, and what serves them: a question that can go to another process
workers, crew          questions answered side by side, one process per core; progress: how far they are
rates, standing        what many answers show
report, report_sweep   the answers in tables; reasons: in sentences; words: in numbers
canvas, film, picture_run, picture_compare, picture_sweep    the answers as PNG
"""
