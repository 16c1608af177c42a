"""Makes the synthetic report importable as ``synthetic_report`` by the tests beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
