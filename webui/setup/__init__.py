"""What sets an installation up and keeps it right.

The standard library alone: launch.py runs it before anything is installed.
"""
