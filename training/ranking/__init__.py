"""The ranker: orders the candidates of all sources, by Feast's features as they stood then."""
