"""Many samples in a folder of shards, drawn by one process or by the workers of a Ray cluster."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.scale.bulk import sample
    from difftool.scale.manifest import BulkRequest, Manifest, Shard, read_manifest
    from difftool.scale.shards import digests, encode_shard, require_parquet

__all__ = [
    "BulkRequest",
    "Manifest",
    "Shard",
    "digests",
    "encode_shard",
    "read_manifest",
    "require_parquet",
    "sample",
]

_HOMES = {
    "BulkRequest": "difftool.scale.manifest",
    "Manifest": "difftool.scale.manifest",
    "Shard": "difftool.scale.manifest",
    "digests": "difftool.scale.shards",
    "encode_shard": "difftool.scale.shards",
    "read_manifest": "difftool.scale.manifest",
    "require_parquet": "difftool.scale.shards",
    "sample": "difftool.scale.bulk",
}

__getattr__ = lazily(__name__, _HOMES)
