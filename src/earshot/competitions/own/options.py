"""What prepare.py can be told of recordings of one's own."""

from __future__ import annotations

from pathlib import Path

from earshot.competitions.competition import Flag

FLAGS = (
    Flag("--table", Path, "CSV or TSV that names recordings and their labels, or a folder of them (default: found in "
         "--source)"),
    Flag("--annotations", Path, "annotation file, or a folder of them (default: those found in --source)"),
    Flag("--test", Path, "folder of recordings without labels, to predict"),
    Flag("--path-column", str, "column of the recordings' names (default: guessed)", "", "COLUMN"),
    Flag("--label-column", str, "column of the labels (default: guessed); subfolder: the folders within the first, "
         "of sessions that hold a folder a class", "", "COLUMN"),
    Flag("--names", str, "what recordings' names say, such as {speaker}_{sentence}_{label}_{level}: a column a field, "
         "label the class; {} says nothing, {x:2} has 2 characters, {x...} may hold anything", "", "TEMPLATE"),
    Flag("--label-separator", str, "what separates several labels in a cell; none: a cell is one label", "", "TEXT"),
    Flag("--group-column", str, "column that folds may not split; folder: the recording's folder; subfolder: the one "
         "below its class, of one name in every class", "", "COLUMN"),
    Flag("--split-column", str, "column that says train, val or test (default: split, where there is one)", "",
         "COLUMN"),
    Flag("--fold-column", str, "column of whole numbers: folds that are given (default: folds are made)", "", "COLUMN"),
    Flag("--several-labels", str, "where rows of a recording differ in their label: together (it has all of them) or "
         "none (it has no label); default: an error where few differ", "", "HOW"),
    Flag("--min-confidence", float, "leave out what a column such as confidence says is less sure than this, from 0 to "
         "1 (default: all count)", None, "SHARE"),
    Flag("--confidences", str, "heard: events count as heard, whatever a column such as confidence says (the default); "
         "shares: these are soft labels, which train as they are", "", "HOW"),
    Flag("--unsure", str, "words of a column such as certainty, by commas: classes of rows with them are unknown in "
         "their recordings, neither there nor absent", "", "WORDS"),
    Flag("--tier", str, "of TextGrids and files of ELAN with several tiers of intervals", "", "NAME"),
)  # fmt: skip
