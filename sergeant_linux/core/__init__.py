"""The core decides and touches nothing: no clock, no process, no file; facts go in, commands come out."""
