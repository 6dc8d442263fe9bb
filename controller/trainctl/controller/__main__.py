"""``python -m trainctl.controller``."""

import sys

from trainctl.controller.main import main

if __name__ == "__main__":
    sys.exit(main())
