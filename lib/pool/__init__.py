"""Groups of runs trained by worker processes, on this machine or on many: Dask distributed.

What travels to a worker is a profile and the settings of a group's runs; what comes back is what
training gave. The client alone writes rows. Workers keep networks, photos and trunks for the
groups that follow. Where the variable SCHEDULER is empty nothing of this is used.
"""
