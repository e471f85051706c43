"""The command line: one module a verb, each with `add(subparsers)` and `run(args) -> int`."""
