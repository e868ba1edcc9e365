"""Migrations of chroma.sqlite3: those of the releases that are known, and what others change.

Sources in chroma-core/chroma, at the tags of the releases: ``chromadb/migrations`` (0.x) and
``rust/sqlite/migrations`` (1.x). Two releases agree on a migration where name and text are the
same; the number alone says nothing, as branches hand out the same one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hnswcheck.formats.text import text
from hnswcheck.store.database import Database

#: Bytes of a migration's text that are read; the longest of the known ones has 1.5 kB.
LONGEST_SQL = 1 << 20


class Migration(NamedTuple):
    """A row of ``migrations``.

    Attributes:
        sql: its text, at most :data:`LONGEST_SQL` bytes.
        digest: ``hash``, which Chroma made of the text.
    """

    folder: str
    version: object
    filename: str
    sql: bytes
    digest: str

    @property
    def fingerprint(self) -> str:
        """The first half of the SHA-256 of the text."""
        return hashlib.sha256(self.sql).hexdigest()[:32]

    @property
    def is_only_0_4_0(self) -> bool:
        """Whether 0.4.0 wrote it, and no other release accepts it."""
        return (self.folder, self.version, self.fingerprint) == ("metadb", 1, ONLY_0_4_0)

    @property
    def place(self) -> str:
        """Folder and file."""
        return f"{self.folder}/{self.filename or self.version}"


#: Folder, file and the first half of the SHA-256 of its text, in order. No release changed a text,
#: but that 0.4.1 has another metadb 1 than 0.4.0.
_KNOWN = """
embeddings_queue 00001-embeddings fbcbdac621c6bdebe561ae0bd3eac840
embeddings_queue 00002-embeddings-queue-config 788fe9b405526821be2f4e305da38917
sysdb 00001-collections dfa5720fb290880c9a7abac9262024cd
sysdb 00002-segments e459a7f668f9c9a38562e92211feeccc
sysdb 00003-collection-dimension 465c9dd473bf084e6acddcfd15c2587e
sysdb 00004-tenants-databases 0da5897ebd71a72ee540c1011265671f
sysdb 00005-remove-topic 60a348031c4bcf98d611ca6362fa8b75
sysdb 00006-collection-segment-metadata 5768db7d49f555920dacc7012f173cfd
sysdb 00007-collection-config e787b736706f173e9b279505e0e7027f
sysdb 00008-maintenance-log 66ad31eefddd3070be27963a053319f0
sysdb 00009-segment-collection-not-null b5564781c2b24dfdc79024a2e8f17ad9
sysdb 00010-collection-schema 38b8b08790d290caff0043129e71e983
metadb 00001-embedding-metadata 0e7477e62bd40830f28f9986f0703597
metadb 00002-embedding-metadata 337de70bb89c42bf01747642fbe9310f
metadb 00003-full-text-tokenize 13fd5839823c8f1e236431c2f716a0ae
metadb 00004-metadata-indices 46e874a3bf99ae95611fd8f781b9aecc
metadb 00005-max-seq-id-int 363f44b68fcda609e239e1e23263d655
metadb 00006-metadata-array-support 352340cb5ffe1d2e2a44b3d6d2651128
"""

#: The other metadb 1, with another tokenizer for its search: each later release compares texts, and
#: refuses the store.
ONLY_0_4_0 = "d54f21e5694c25e999dc529fe5fb140b"


def _by_folder() -> Mapping[str, Sequence[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for folder, name, digest in map(str.split, _KNOWN.strip().splitlines()):
        found.setdefault(folder, []).append((f"{name}.sqlite.sql", digest))
    return found


#: By folder, in order: name of the file, and :attr:`Migration.fingerprint`.
KNOWN = _by_folder()


def read_migrations(database: Database, columns: frozenset[str]) -> tuple[Migration, ...]:
    """All rows of ``migrations``, by folder and version.

    Args:
        columns: that the table has; what it lacks is empty.
    """
    wanted = ("filename", f"substr(sql, 1, {LONGEST_SQL})", "hash")
    there = (
        name if column in columns else "''"
        for column, name in zip(("filename", "sql", "hash"), wanted, strict=True)
    )
    rows = database.rows(
        f"SELECT dir, version, {', '.join(there)} FROM migrations ORDER BY dir, version"
    )
    return tuple(
        Migration(
            text(folder), version, text(name), sql if isinstance(sql, bytes) else b"", text(digest)
        )
        for folder, version, name, sql, digest in rows
    )


def foreign_migrations(migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """Those that no known release has: under a number of theirs they have another name."""
    return tuple(m for m in migrations if not _has_place(m))


def _has_place(migration: Migration) -> bool:
    known, version = KNOWN.get(migration.folder, ()), migration.version
    if not isinstance(version, int) or version > len(known):
        return False
    # What is below 1 no release hands out: the numbers are not in order then, and that is said.
    return version < 1 or migration.filename in ("", known[version - 1][0])


def has_known_text(migration: Migration) -> bool:
    """Whether a migration that is none of the foreign ones has the text that a release gave it."""
    known, version = KNOWN[migration.folder], migration.version
    if not isinstance(version, int) or version < 1:
        return False
    return migration.is_only_0_4_0 or migration.fingerprint == known[version - 1][1]


_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = r"""["'`\[]?(\w+)["'`\]]?"""
#: Statements that leave alone what is there; the group is a table that they might not.
_HARMLESS = (
    re.compile(r"(?:PRAGMA|SELECT)\b", re.IGNORECASE),
    re.compile(r"CREATE\s+(?:UNIQUE\s+)?INDEX\b", re.IGNORECASE),
    re.compile(r"DROP\s+INDEX\b", re.IGNORECASE),
    re.compile(rf"ALTER\s+TABLE\s+{_NAME}\s+ADD\b", re.IGNORECASE),
)
_OF_A_TABLE = (
    re.compile(rf"CREATE\s+VIEW\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"CREATE\s+(?:VIRTUAL\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\s+{_NAME}", re.IGNORECASE),
    re.compile(rf"UPDATE\s+(?:OR\s+\w+\s+)?{_NAME}", re.IGNORECASE),
    re.compile(rf"DELETE\s+FROM\s+{_NAME}", re.IGNORECASE),
    re.compile(rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?{_NAME}", re.IGNORECASE),
)


def unsettling(sql: bytes, tables: frozenset[str]) -> Iterator[str]:
    """Statements of a migration that may change what rows of some tables mean.

    Harmless are new tables, indexes and columns, and whatever is done to other tables.

    Args:
        tables: the ones that are read.
    """
    for raw in _COMMENT.sub(" ", sql.decode(errors="replace")).split(";"):
        statement = " ".join(raw.split())
        if not statement or any(form.match(statement) for form in _HARMLESS):
            continue
        of_table = next(filter(None, (form.match(statement) for form in _OF_A_TABLE)), None)
        if of_table is None or of_table[1].lower() in tables:
            yield statement
