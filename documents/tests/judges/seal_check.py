# The seals named on the command line, as ofd_check.py sees them.
import sys

files, sys.argv = sys.argv[1:], sys.argv[:1]
import ofd_check

for name in files:
    with open(name, "rb") as file:
        ofd_check.seal(file.read())
