"""What a measured keysync works on: its configuration, its API key and its target."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Command
from bench.serve import Account


@dataclass(frozen=True, slots=True)
class Site:
    """One configuration in `directory`; without `path` sshd is asked for the key file."""

    directory: Path
    keysync: Path
    account: Account
    user: str
    path: Path | None = None

    @property
    def config(self) -> Path:
        """The file for --config."""
        return self.directory / "config.yaml"

    @property
    def state(self) -> Path:
        """keysync's own folder, made by the first sync."""
        return self.directory / "state"

    def write(self) -> None:
        """Makes the directory, the configuration and the file with the API key."""
        self.directory.mkdir(exist_ok=True)
        key_file = self.directory / "api_key"
        key_file.touch(mode=0o600)
        key_file.write_text(self.account.api_key)
        target = {"user": self.user} | ({"path": str(self.path)} if self.path else {})
        # JSON is YAML; a mapping in block style, as people write it, would cost the same to read.
        lines = (
            f"api: {json.dumps({'url': self.account.url, 'key_file': str(key_file)})}",
            f"targets: {json.dumps([target])}",
            f"state_dir: {json.dumps(str(self.state))}",
        )
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def sync(self, name: str, says: str) -> Command:
        """`keysync sync`, which must say so in its log."""
        words = (str(self.keysync), "sync", "--config", str(self.config))
        return Command(name, words, says)
