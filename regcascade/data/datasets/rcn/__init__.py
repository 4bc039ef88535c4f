"""The preprocessed HDF5 files of RCN's authors, with their JSON."""
