"""What the benchmarks of scale share: the processes, and what is watched while they run."""
