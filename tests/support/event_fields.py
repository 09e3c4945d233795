"""Fields that many events of a test have in common, to be built with `**`."""

from __future__ import annotations

from typing import Any

KEY: dict[str, Any] = {
    "sync_id": "id",
    "user": "root",
    "path": "/k",
    "fingerprint": "SHA256:f",
    "key_type": "t",
    "comment": "",
    "key_id": 1,
}
NO_CHANGES: dict[str, Any] = {"dry_run": False, "added": 0, "adopted": 0, "removed": 0}
