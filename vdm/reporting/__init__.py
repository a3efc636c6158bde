"""What runs recorded, for people: a page of one run, a comparison of several.

It only reads: runs may train meanwhile. `run_record` is the one place that
knows which files a run has and what older ones lack.
"""
