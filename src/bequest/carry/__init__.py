"""What crosses from one process to another, and how it is rebuilt there.

Knows nothing of processes, start methods or pools. A sender packs with `pickler`; what it writes is a plain
pickle whose reconstructors live in the modules of this package, so that `pickle.loads` reads it wherever
bequest can be imported.
"""
