"""What people wrote down about when sounds are heard: the files of Raven, Audacity, Praat and tables, in and out."""
