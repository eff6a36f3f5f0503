"""How a child begins: what it is given, who starts it, and how its parent follows it to the end.

    Popen (spawn | template | fork) -> handoff -> the child's first code (child)

Uses `carry` for what crosses; knows nothing of contexts, pools or installation.
"""
