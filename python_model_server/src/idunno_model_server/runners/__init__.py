"""Runners: processes that run the code of models which users brought, one process for each loaded version.

    the server (front)                                a runner
    app -> repository -> SupervisedRunner             start_child.py -> child
                           RunnerProcess  <- frames over a socket pair ->  execution -> the model's code
                           ProcessFamily, OutputTail

What a model's code does to its process, it does to that process alone: a crash, a leak, `os._exit`, a signal handler, a
library of another version. Unloading a version is ending its process. The predefined models run in the server itself.

`child` and what it imports need nothing beyond the standard library, so that they run in any environment.
"""
