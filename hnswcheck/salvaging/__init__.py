"""For every record: where its best vector still is, and how sure that is. Reads only.

Why is this vector suspect? ``repair --plan`` names the reason; :mod:`.reason` has all of them in
words, and :mod:`.grading` is the one place that gives them. The map of the room:

- :mod:`.grade`, :mod:`.reason`, :mod:`.judged`: how sure a vector is, and why.
- :mod:`.log_evidence`: what the write-ahead log proves of each record's vector.
- :mod:`.damaged_segment`, :mod:`.element_damage`: what can still be read of a segment folder, and
  which of its elements damage has reached.
- :mod:`.evidence`: a folder, the records and the log, laid beside each other to ask questions.
- :mod:`.as_of`: after which operation a folder was written.
- :mod:`.folder_assignment`: whose the elements of a folder are, and all that grading asks of it.
- :mod:`.assignment` tries three ways to that: :mod:`.by_order` (with :mod:`.label_order` and
  :mod:`.label_gaps`) by the order of the records, :mod:`.by_id_map` (with :mod:`.merge_maps`) by
  the id map, :mod:`.by_insertion_number` by the numbers of the records.
- :mod:`.grading`: the grade and the reason of each vector of a folder.
- :mod:`.sources`: asks the log and every folder, and keeps the best for each record.
- :mod:`.counts` tells an audit how many records each source has; :mod:`.export`, with :mod:`.rows`
  and :mod:`.parquet`, writes everything to files (``hnswcheck.salvage``).
"""
