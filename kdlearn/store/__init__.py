"""A teacher's outputs, computed once and kept on disk."""

from kdlearn.store.cache import (
    AttentionMap,
    CachedTeacher,
    CacheError,
    Features,
    FixedCopies,
    Relation,
    Sampled,
    TopK,
    cache_teacher,
    open_cache,
)

__all__ = [
    "AttentionMap",
    "CacheError",
    "CachedTeacher",
    "Features",
    "FixedCopies",
    "Relation",
    "Sampled",
    "TopK",
    "cache_teacher",
    "open_cache",
]
