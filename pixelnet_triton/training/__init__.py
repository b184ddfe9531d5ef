"""The training recipe of the paper for Lightning: the extra `train`."""
