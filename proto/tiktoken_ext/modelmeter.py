"""Gives tiktoken an encoding whose ranks lie beside it: no network, no cache.

`tiktoken_ext` is a namespace that any distribution may add a module to, so it has no `__init__.py`. tiktoken
imports every module in it and refuses names that are there twice: hence a name of our own for OpenAI's ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mmproto.estimation import ranks

ENCODING_CONSTRUCTORS: Final[dict[str, Callable[[], dict[str, Any]]]] = {ranks.NAME: ranks.encoding}
