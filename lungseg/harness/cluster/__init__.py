"""Trials on the workers of a Dask cluster: `lungseg benchmark SPEC --cluster tcp://host:port`.

`connection` finds the cluster. `dispatch` hands one trial at a time to each worker. `transfer` gets back what
a worker can't write into the results directory itself. `worker` runs in a worker, and starts a process beside
it: the `runner`, which makes the plan and runs the trials. Signals, threads and the working directory belong
to a process, so a trial shares none with a worker. And a trial that crashes leaves the worker alive.

What comes back is JSON, and parts of files as bytes.
"""
