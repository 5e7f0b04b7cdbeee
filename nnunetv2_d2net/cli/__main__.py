"""``python -m nnunetv2_d2net.cli`` is ``d2net``."""

import sys

from nnunetv2_d2net.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
