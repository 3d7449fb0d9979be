"""A teacher's outputs, computed once and kept on disk."""

from kdlearn.store.cache import CachedTeacher, CacheError, cache_teacher, open_cache
from kdlearn.store.kinds import AttentionMap, Relation, Sampled, TopK

__all__ = [
    "AttentionMap",
    "CacheError",
    "CachedTeacher",
    "Relation",
    "Sampled",
    "TopK",
    "cache_teacher",
    "open_cache",
]
