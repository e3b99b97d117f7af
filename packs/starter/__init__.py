"""The starter pack: small real models and an emoji probe set, for machines with no GPU or hub.

The model folders lie beside this file: ``captioner/``, ``synthesizer/``, ``scorer/``.
"""

from pathlib import Path

PACK_DIR = Path(__file__).resolve().parent
CAPTIONER_DIR = PACK_DIR / "captioner"
SYNTHESIZER_DIR = PACK_DIR / "synthesizer"
SCORER_DIR = PACK_DIR / "scorer"

__all__ = ["CAPTIONER_DIR", "PACK_DIR", "SCORER_DIR", "SYNTHESIZER_DIR"]
