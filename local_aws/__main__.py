"""`python -m local_aws --port N` serves the embedded AWS in the foreground."""

import argparse
import os

parser = argparse.ArgumentParser(prog="python -m local_aws", description="The embedded AWS.")
parser.add_argument("--port", type=int, default=4566, help="port of 127.0.0.1; 0 takes a free one")
parser.add_argument("--containers", action="store_true", help="run real containers with this machine's Docker engine")
parser.add_argument("--idle", type=float, default=24 * 3600, help="seconds without a request after which it ends")
parser.add_argument("--background", action="store_true", help="serve in a background process")
arguments = parser.parse_args()

# Fork before anything is imported that starts threads or takes long.
if not (arguments.background and os.fork()):
    from local_aws.server import main

    main(arguments.port, containers=arguments.containers, idle=arguments.idle)
