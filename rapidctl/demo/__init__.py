"""The demo: two simulated hosts on one trace, made of the real daemons and of engines that only pretend to compute.

role_change        the engine's side of a role order; pure, and what an engine adapter will build on
talk               what engines and the demo's router say to each other, and the socket they say it over
engine, links      the real-time simulated engine: the model of rapid.sim against the clock
router             one front end per host: dispatches, hands the KV cache over, keeps the record of every request
load, scale        the requests and how fast they come
plan, host, stage  which processes a host has; they are started, watched, started again and stopped in order
figures, report    what came of it, in numbers; picture: the same as a PNG
scene, view        what the screen shows while it runs
audit              the judge: reads the devices' own records and sums the limits
"""
