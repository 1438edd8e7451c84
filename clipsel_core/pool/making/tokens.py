"""How do captions become the numbers that a teacher takes? Imports nothing of torch, so that workers can do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

# Characters of a caption that are tokenized, for each token that the teacher takes. Of a word of 100 kB the tokenizer
# would otherwise join letters for hours, to keep 77 tokens of it.
_CHARACTERS_A_TOKEN = 32


@dataclass(frozen=True)
class Tokens:
    """A teacher's tokenizer, which captions of any length can be given."""

    tokenizer: Callable[[Sequence[str]], Any]

    def cut(self, caption: str) -> str:
        """As much of a caption as the teacher can see anything of."""
        return caption[: _CHARACTERS_A_TOKEN * getattr(self.tokenizer, "context_length", 77)]

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """(N, L) int32, L the teacher's context."""
        return np.asarray(self.tokenizer([self.cut(caption) for caption in captions])).astype(np.int32)

    @property
    def travels(self) -> bool:
        """Whether it can be handed to a process."""
        try:
            return bool(ForkingPickler.dumps(self.tokenizer))
        except Exception:
            # Functions made within functions, say: whatever cannot be sent says so in a way of its own.
            return False
