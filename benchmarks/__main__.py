"""Runs the benchmarks that need no arguments, one after the other: `make bench`.

The others say in their first lines how they are called.
"""

import runpy
import sys

if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    for name in ("index_memory", "dissect", "pipeline"):
        print(f"== python -m benchmarks.{name}", flush=True)
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
