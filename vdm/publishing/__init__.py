"""A trained model to a folder that can be given away, and to the hub.

`export_files` writes what `trained.export_folder` reads.
"""
