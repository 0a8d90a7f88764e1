"""Many samples in a folder of shards, drawn by one process or by the workers of a Ray cluster."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.scale.bulk import sample
    from difftool.scale.manifest import BulkRequest, Manifest, Shard, read_manifest
    from difftool.scale.shards import digests

__all__ = ["BulkRequest", "Manifest", "Shard", "digests", "read_manifest", "sample"]

_HOMES = {
    "BulkRequest": "difftool.scale.manifest",
    "Manifest": "difftool.scale.manifest",
    "Shard": "difftool.scale.manifest",
    "digests": "difftool.scale.shards",
    "read_manifest": "difftool.scale.manifest",
    "sample": "difftool.scale.bulk",
}

__getattr__ = lazily(__name__, _HOMES)
