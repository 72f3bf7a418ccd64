"""What mine.py reads of recordings of one's own: the files (recordings), and who says what is heard in them.

Folders (folders), a table (tables finds it, labels reads it), annotation files (annotations), lists of a split
(splits); beside these: what somebody was not sure of (doubts), soft labels (shares) and the flags (options).
"""
