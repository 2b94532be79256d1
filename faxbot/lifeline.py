"""No process of ours outlives the one it works for: Linux's parent-death signal, set by each child for itself.

The signal is not inherited by fork(), so every layer sees to its own: the supervisor's children, those that the web
master and the worker fork, the children that open documents. It is kept over exec(), and it fires when the parent
*thread* that forked ends (prctl(2)): fork from threads that stay.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when the process `parent` (its pid, taken before the
    fork) is gone.

    To be called in the child, first thing. A parent that died since the fork is noticed here.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def forks_die_with_me() -> None:
    """From now on every child that this process makes with os.fork() dies with it.

    For servers that fork their workers in their own code. Children of those children, and what subprocess starts,
    look after themselves.
    """
    parent = os.getpid()
    forking = parent

    def before() -> None:
        nonlocal forking
        forking = os.getpid()

    def in_child() -> None:
        if forking == parent:
            die_with_parent(parent)

    os.register_at_fork(before=before, after_in_child=in_child)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, as PID 1 is: none of them stays a zombie."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
