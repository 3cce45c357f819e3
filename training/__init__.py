"""Training: from clean events in the lake to judged, immutable releases.

`nightly.train_nightly` learns the whole model, `finetune.finetune` goes on from a release.
"""
