"""A web page for dead letters: plain forms, no JavaScript, nobody gets in without a password."""
