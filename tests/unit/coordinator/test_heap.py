"""Leaving what is loaded out of collections; in a process of its own, since it holds for good."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from dnd_services.coordinator.heap import freeze_heap
class Node: pass
held = [Node() for _ in range(1000)]
freeze_heap()
assert not {id(one) for one in held} & {id(one) for one in gc.get_objects()}
node = Node(); node.itself = node; del node      # a cycle that came later is still found
assert gc.collect() >= 1
assert gc.get_threshold()[0] == 50_000
"""


def test_what_is_held_is_frozen_and_later_cycles_are_collected() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
