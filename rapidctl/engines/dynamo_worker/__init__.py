"""A worker of NVIDIA Dynamo (1.6) whose role can be changed while it runs. `rapidctl attach dynamo` drives it.

    python -m rapidctl.engines.dynamo_worker --control /run/rapid/d0.sock -- \\
        --model-path M --model-name tiny --disaggregation-mode decode

It runs in Dynamo's own environment in place of `python -m dynamo.mocker` and takes the same arguments after `--`.
Dynamo has no call that changes a role: a role is the card and the endpoint that a worker publishes when it starts. So a
change is, in one process: take the card back; wait until no request is left; shut the runtime down; build the engine
anew in the other role, on a new runtime with a new worker id; publish that.

Nothing of RAPID is imported here, and of others nothing but Dynamo, so that `pip install --no-deps` is enough: RAPID's
gRPC and protobuf are newer than those that engines pin, and must not be forced on them. What speaks to the controller
is a process of RAPID's environment, which tells this one what to do over a Unix socket, in one JSON object per line:
{"do": "state"}, {"do": "close"}, {"do": "switch", "role": "decode"}, {"do": "open"}; one in answer. Whoever may write
to the socket (mode 0600) commands the worker, one caller at a time: when it goes away, having taken the worker out of
service, the worker goes back into service in the role that it has.

Another engine than the mocker is named by --engine MODULE:FUNCTION: a coroutine function that is called with the words
after `--` and "prefill" or "decode" and returns a `Half` (half.py).

Its own page (DYN_SYSTEM_PORT) shows, beside Dynamo's metrics, what forward passes add up to: rapid_fpm_*.
"""
