"""The demo: two simulated hosts on one trace, made of the real daemons and of engines that only pretend to compute.

talk               what engines and a front end say to each other, and the socket they say it over
engine             the simulated engine: the model of rapid.sim, a role, and the time it is told
serve, links       the same as a process: its GPU, its clock, its connections; own_load: requests it makes up
router, record     the front end of a host: dispatches requests, and remembers what became of each
load, replay       the requests, how fast they come, and sending them when they are due
host               one host: its GPUs, and the configurations of the real programs on it
processes, mortal  programs that are kept running and that never outlive the demo
stage, follow      all hosts together: started, followed and stopped in order
scene, view        what the screen shows while it runs
audit              the judge: reads the devices' own records and sums the limits
figures, report    what came of it, in numbers; picture: the same as a PNG
run, folder        the demo from start to end, and where its files lie
"""
