"""Official measures and the rules by which benchmarks turn boxes into scores."""
