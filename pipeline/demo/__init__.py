"""The demo: MovieLens-100K once round the ring, through a real scheduler, with a report."""
