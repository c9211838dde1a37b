"""Real servers on this machine, as child processes: for the demo, the tests and the benchmarks alike."""
