"""``python -m pixelnet_triton train | evaluate | predict``."""

import sys

if __name__ == "__main__":
    try:
        from .recipes.command import main
    except ImportError as missing:  # Lightning, torchmetrics ...; the message names the extra
        sys.exit(f"python -m pixelnet_triton: {missing}")
    sys.exit(main())
