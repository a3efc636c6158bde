"""A trained model to a folder that can be given away, and to the hub.

`export_files` writes what `trained.export_folder` reads, `model_card` the page
for people from the `run_facts`, `export` all of these with videos, and `upload`
sends the folder to the Hugging Face hub.
"""
