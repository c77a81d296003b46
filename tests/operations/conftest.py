"""The platforms of the stand-in machines are made where evidence is tested."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit" / "trust"))
