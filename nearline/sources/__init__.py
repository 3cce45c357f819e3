"""Where events and catalogues come from: public datasets, and anyone's files."""
