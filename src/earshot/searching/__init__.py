"""Search of settings: which spaces may be searched, the folds that no trial hears, trials, and what is reported."""
