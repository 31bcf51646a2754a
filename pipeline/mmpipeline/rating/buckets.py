"""Which of the catalogue's price keys pays for which of our buckets, and for how many of it.

The catalogue's units contain each other (input contains cache reads) and its prices are those of the most
specific unit that has one. Our buckets are disjoint, so each bucket simply takes the first price there is
on its way from the most specific unit to the widest.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmproto.rating import REQUESTS

# Bucket: the catalogue's price keys that pay for it, the most specific first.
FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "input": ("input_text_mtok", "input_mtok"),
    "input_cache_read": ("cache_text_read_mtok", "cache_read_mtok", "input_text_mtok", "input_mtok"),
    "input_cache_write_5m": (
        "cache_text_write_5m_mtok",
        "cache_write_5m_mtok",
        "cache_text_write_mtok",
        "cache_write_mtok",
        "input_text_mtok",
        "input_mtok",
    ),
    "input_cache_write_1h": (
        "cache_text_write_1h_mtok",
        "cache_write_1h_mtok",
        "cache_text_write_mtok",
        "cache_write_mtok",
        "input_text_mtok",
        "input_mtok",
    ),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "input_audio_cache_read": (
        "cache_audio_read_mtok",
        "input_audio_mtok",
        "cache_read_mtok",
        "input_mtok",
    ),
    "input_image": ("input_image_mtok", "input_mtok"),
    "input_video": ("input_video_mtok", "input_mtok"),
    "output": ("output_text_mtok", "output_mtok"),
    "output_reasoning": (
        "output_text_reasoning_mtok",
        "output_reasoning_mtok",
        "output_text_mtok",
        "output_mtok",
    ),
    "output_audio": ("output_audio_mtok", "output_mtok"),
    "output_image": ("output_image_mtok", "output_mtok"),
    "web_searches": ("web_searches_kcount",),
    "audio_seconds": ("input_audio_hours", "audio_hours"),
    "characters": ("input_mchars",),
    "pages": ("input_document_kpages",),
    "annotated_pages": ("input_annotated_document_kpages",),
    "rerank_units": ("rerank_searches_kcount",),
    REQUESTS: ("requests_kcount",),
}

PER: Mapping[str, int] = {
    "web_searches": 1_000,
    "audio_seconds": 3_600,
    "pages": 1_000,
    "annotated_pages": 1_000,
    "rerank_units": 1_000,
    REQUESTS: 1_000,
}
PER_MILLION = 1_000_000

# Tool calls keep their full price in a batch; of other units than tokens no batch price is documented.
FULL_PRICE_IN_BATCH = frozenset({"web_searches", REQUESTS})
