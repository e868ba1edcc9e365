"""Findings about a store as a whole, and the remedies that several findings share.

The registry is :mod:`hnswcheck.findings`.
"""

from __future__ import annotations

from hnswcheck.kinds import Kind

KEEP = (
    "Stop all writers and copy the whole persist directory first. Do not delete or rename a"
    " segment folder: vectors exist only there and in the WAL."
)
NOTHING = "Nothing."
RESTORE = (
    f"{KEEP} Run hnswcheck repair PATH --plan to see which vectors can be brought back, or restore"
    " a backup that passes an audit. Writing to the damaged collection may block it for good."
)
REPAIR = (
    f"{KEEP} Run hnswcheck repair PATH: it brings back records whose vectors still exist, and"
    " removes ids that sqlite does not have. Or restore a backup of one moment."
)

STORE_KINDS = (
    Kind(
        "store-not-found", "store", "warning", "there is nothing at this path",
        "Chroma would create an empty store here.",
        "Check the path.", undecides=True, no_store=True,
    ),
    Kind(
        "not-a-chroma-store", "store", "warning", "this is not a Chroma persist directory",
        "Chroma would create an empty store here, or fail to open it.",
        "Name the directory that holds chroma.sqlite3. If this one should be a store, its"
        " chroma.sqlite3 is lost: restore a backup.", undecides=True, no_store=True,
    ),
    Kind(
        "schema-unknown", "store", "warning",
        "chroma.sqlite3 has a schema this version cannot read",
        "The Chroma that wrote it may still read it. Nothing was judged.",
        "Use a newer hnswcheck, or look at the store with the Chroma version that wrote it.",
        undecides=True,
    ),
    Kind(
        "schema-newer", "store", "warning",
        "chroma.sqlite3 has migrations that are newer than those this version knows",
        "A later Chroma wrote the store, and earlier ones may refuse it. What hnswcheck reads has"
        " the form that it knows, and is judged by the ways of the newest release that it knows.",
        "Use a newer hnswcheck if there is one. Before a repair, copy the persist directory.",
    ),
    Kind(
        "upgrade-refused", "store", "warning", "no release after Chroma 0.4.0 opens the store",
        "0.4.1 changed a migration, so each later release fails with \"Inconsistent hash\". The"
        " records and vectors are sound, and 0.4.0 goes on.",
        "Keep the directory and an environment with Chroma 0.4.0. To upgrade, let hnswcheck salvage"
        " write each collection to a file, and add the records to a new store.",
    ),
    Kind(
        "sqlite-damaged", "store", "error", "sqlite cannot read chroma.sqlite3",
        "Calls that touch the damaged pages fail with \"database disk image is malformed\".",
        "Copy the persist directory, then recover the copy's chroma.sqlite3 with sqlite's"
        " .recover, or restore a backup. Leave the segment folders alone.", whole_database=True,
    ),
    Kind(
        "sqlite-busy", "store", "warning", "another process kept chroma.sqlite3 locked",
        "Nothing was judged.", "Run the audit again, or stop the writer.", undecides=True,
    ),
    Kind(
        "store-changed", "store", "warning", "the store changed while it was read",
        "Nothing was judged: a writer was at work each time.",
        "Run the audit again while no process writes, or audit a snapshot.", undecides=True,
    ),
    Kind(
        "file-unreadable", "store", "warning", "what an audit needs could not be read",
        "Nothing was judged. Chroma may or may not be able to read it.",
        "The line above names the file and the cause, such as a permission or missing disk space"
        " or memory. Remove the cause and audit again.", undecides=True,
    ),
    Kind(
        "segment-row-missing", "store", "error", "a collection lacks a segment in sqlite",
        "Every call on the collection fails.",
        "Restore chroma.sqlite3 from a backup: the missing row names the folder of the vectors.",
    ),
    Kind(
        "segment-type-unknown", "store", "warning",
        "a vector segment is of a type that this version does not know",
        "A Chroma that does not know the type fails every call on the store. Nothing was judged.",
        "Use a newer hnswcheck. If no version of Chroma knows the type, restore chroma.sqlite3"
        " from a backup.", undecides=True,
    ),
    Kind(
        "catalogue-invalid", "store", "error",
        "rows about collections, tenants or migrations that Chroma cannot read",
        "Chroma fails to open the store, fails every call on the collection, or measures a"
        " wrong distance.",
        "Leave the segment folders alone. Restore chroma.sqlite3 from a backup of the same moment,"
        " or correct the rows on a copy.",
    ),
    Kind(
        "release-refuses", "store", "error", "the release that is to open the store cannot",
        "The release fails to open the store, or fails every call that names a collection; 1.2.2"
        " opens it, and measures l2 where the collection has another distance.",
        "Open the store with a release that can: the report names them. A store never becomes"
        " older again. Take a backup from before the upgrade, or add the records to a new store.",
    ),
    Kind(
        "settings-refused", "store", "error",
        "settings of collections that this release of Chroma refuses",
        "list_collections() fails, and so does get_collection() of these collections: \"Unknown"
        " HNSW parameter\", \"Invalid parameter value\", \"batch_size must be less than or equal to"
        " sync_threshold\", or \"'_type'\". The others can be opened by their names.",
        "Use a release that takes them: the report names them. Before an upgrade,"
        " collection.modify(metadata=...) of the Chroma that wrote the store can correct the keys,"
        " and from 1.0 on collection.modify(configuration=...) those of a configuration.",
    ),
    Kind(
        "settings-refused-elsewhere", "store", "info",
        "settings of collections that other releases of Chroma refuse",
        "Some releases that could open the store fail in list_collections() and in"
        " get_collection() of these collections.",
        "Do not use these releases; or correct the keys before, with"
        " collection.modify(metadata=...) of the Chroma that wrote the store, and from 1.0 on with"
        " collection.modify(configuration=...) for those of a configuration.",
    ),
    Kind(
        "segment-path-unsafe", "store", "error",
        "a segment folder, or a file in it, is none, and leads to none",
        "Chroma follows a symlink or a path out of the persist directory. Where it leads there is"
        " nothing that could be read: it ends nowhere, runs in a circle, or leads to something that"
        " is not a folder or a file. The folder was not read.",
        "Replace the link by the folder or file that it should lead to. If the segment's id in"
        " sqlite is not a uuid, restore chroma.sqlite3 from a backup.", means="undecided",
    ),
    Kind(
        "segment-symlinked", "store", "info", "a segment folder, or a file in it, is a symlink",
        "Chroma follows it and writes to its target, so a copy or backup of the directory may lack"
        " these vectors. The audit followed it, too; quarantine, repair and restore refuse.",
        "Make sure that backups follow symlinks. Before a repair, replace the link by what it leads"
        " to.",
    ),
    Kind(
        "segment-not-persisted", "store", "info", "the collection keeps no vector index on disk",
        "Its vectors live in the memory of one process, or in another system. There is nothing to"
        " audit.", "Nothing, if that is intended.", means="empty",
    ),
    Kind(
        "segment-folder-unclaimed", "store", "info", "a segment folder belongs to no collection",
        "Chroma ignores it. It takes space; it may also hold the vectors of a collection that"
        " sqlite has lost.",
        "If no collection is missing, the folder can be deleted: some versions leave it behind when"
        " a collection is deleted.",
    ),
    Kind(
        "segment-folder-discarded", "store", "info",
        "a folder of a deleted collection that Chroma is about to remove",
        "The Chroma that listed it removes the folder when it starts, or within the hour; one that"
        " keeps no such list ignores it.",
        "Nothing. If the collection was deleted by mistake, copy the folder before Chroma runs.",
    ),
    Kind(
        "action-unfinished", "store", "warning", "hnswcheck was stopped while it changed the store",
        "A segment may lack its folder or its watermark, and searches may miss its records.",
        "Run hnswcheck quarantine PATH, or restore PATH --quarantine NAME, without --dry-run: both"
        " first finish the interrupted change or take it back. Do not remove the journal.",
    ),
    Kind(
        "segment-folder-quarantined", "store", "info", "a segment folder was moved aside",
        "Chroma ignores it. Its vectors may exist nowhere else.",
        "Keep it until the audit says that nothing is missing.",
    ),
)  # fmt: skip
