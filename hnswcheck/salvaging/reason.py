"""Why the best vector of a record has its grade, one plain sentence for each way to a grade."""

from __future__ import annotations

from enum import IntEnum

from hnswcheck.salvaging.grade import Grade


class Reason(IntEnum):
    """Why a vector has its grade.

    A number never changes its meaning. Its tens are the number of the grade that the reason gives;
    :attr:`ACCEPTED_BEFORE`, which only takes proof away, comes with any grade below proven.
    """

    NOWHERE = 0
    VECTOR_DAMAGED = 1
    HISTORIES_MIXED = 10
    LABEL_TWICE = 11
    DELETE_MARK = 12
    DAMAGE_NEAR = 13
    WRITTEN_SINCE = 20
    NO_EVIDENCE = 30
    FOLDER_NEWER = 31
    LENGTH_UNKNOWN = 32
    ADD_UNCERTAIN = 33
    NUMBERED_AGAIN = 34
    PERHAPS_DELETED = 35
    FILES_DIFFER = 37
    CALL_UNDONE = 38
    BY_ORDER = 40
    ID_MAP_DISPUTED = 41
    IN_LOG = 50
    IDS_AGREE = 51
    ORDER_CONFIRMED = 52
    NEVER_CHANGED = 53
    FOLDER_NOT_OLDER = 54
    ACCEPTED_BEFORE = 60

    @property
    def slug(self) -> str:
        """The name in JSON and in exports, such as "label-twice"."""
        return self.name.lower().replace("_", "-")

    @property
    def sentence(self) -> str:
        """The reason in words, to stand behind the name of the grade."""
        return _SENTENCES[self]

    @property
    def grade(self) -> Grade | None:
        """The grade that the reason gives; None for one that comes with several."""
        return None if self is Reason.ACCEPTED_BEFORE else Grade(self // 10)


_SENTENCES = {
    Reason.NOWHERE: "no file and no readable row of the log holds its vector",
    Reason.VECTOR_DAMAGED: "its element is damaged: Chroma never stores such a vector",
    Reason.HISTORIES_MIXED: "the folder mixes elements of several histories",
    Reason.LABEL_TWICE: "two elements carry the label",
    Reason.DELETE_MARK: "its element has a delete mark",
    Reason.DAMAGE_NEAR: "damage may have reached its element",
    Reason.WRITTEN_SINCE: "the record was written after the folder",
    Reason.NO_EVIDENCE: "nothing on disk confirms the vector or speaks against it",
    Reason.FOLDER_NEWER: "the folder names ids that sqlite lacks: it may be newer than sqlite",
    Reason.LENGTH_UNKNOWN: "cosine keeps only the direction of the vector: its length is unknown",
    Reason.ADD_UNCERTAIN: "the log adds it, which Chroma ignores where the id existed before",
    Reason.NUMBERED_AGAIN: "the log gave its numbers again after it was emptied",
    Reason.PERHAPS_DELETED: "the log adds it, and may have lost the row that deleted it",
    Reason.FILES_DIFFER: "files of the folder are of two moments, between which the record changed",
    Reason.CALL_UNDONE: "a flush was cut short, and the log has forgotten what it wrote",
    Reason.BY_ORDER: "the order of the records names its element, which nothing confirms",
    Reason.ID_MAP_DISPUTED: "the id map contradicts itself or the other files about the record",
    Reason.IN_LOG: "the log holds the vector that was written last",
    Reason.IDS_AGREE: "all ids agree from the folder's watermark on",
    Reason.ORDER_CONFIRMED: "the order of the records names its element, and the log confirms that",
    Reason.NEVER_CHANGED: "nothing happened to the record after it was added",
    Reason.FOLDER_NOT_OLDER: "the folder has a record that was made after this one was written",
    Reason.ACCEPTED_BEFORE: "an earlier repair accepted it without proof",
}
