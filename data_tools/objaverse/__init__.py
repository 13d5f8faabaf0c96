"""The former name of `data_tools.assets`, kept for one release."""
