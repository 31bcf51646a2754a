"""`python -m mmproto`."""

from mmproto.cli import main

main(prog_name="mmproto")
