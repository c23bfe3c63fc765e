"""What rapidd costs a host and how fast it acts, beside the nvidia-smi loops that people run today.

Both hold the same fake NVIDIA GPUs: the real daemon through nvidia-ml-py, and bash through a stand-in for nvidia-smi.
The driver's own record, on the clock of the kernel, says when a limit was in force; nobody is asked how fast it was.
"""
