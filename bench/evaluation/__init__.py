"""How good are the policies? Every one on every trace, engine, corner of the model and budget; docs/evaluation.md.

    .venv/bin/python -m bench.evaluation [--quick]

grid       what is run, as data
windows    which requests of a trace a seed gets
rule       how many requests per second: by a rule, so that nobody picks the load
meter      what each role drew
tasks      one run, in a process of its own
store      what has been run already, so that Ctrl-C costs nothing
results    what came of it, and results.json
tell       means, intervals, worst cells, leads
document   evaluation.md;  tables, figures, films   what it shows
"""
