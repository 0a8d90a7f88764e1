"""Serve a bundle with small limits, in a process of its own: python -m tests.serve.small_server."""

import sys

import difftool
from difftool.serve import Application, ServeSettings, serve

LIMITS = ServeSettings(max_n=4, max_steps=8, max_body=1 << 14, patience=0.5, streams=2)

if __name__ == "__main__":
    model = difftool.load(sys.argv[1], max_batch=4, threads=1)
    serve(Application({"small": model}, LIMITS), port=0, say=lambda line: print(line, flush=True))
