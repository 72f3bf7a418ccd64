"""What could make a CV wrong: leaks between folds, duplicates, splits that flatter, scores without enough evidence."""
