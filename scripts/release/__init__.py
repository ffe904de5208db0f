"""Releasing a folder of files to an S3 bucket so that the page in it is never broken.

site.read(folder) walks and hashes the files, references.check(site) refuses a page whose parts are missing.
manifest.read(bucket) and the bucket's LIST say what is there, plan.plan(site, state, …) decides in one pure step, and
publish.publish(bucket, site, state, plan, …) acts on it in stages, each only after all of the one before has
succeeded; index.html alone is the commit point.

Under `_release/` in the bucket are the manifest, one record per release, the unhashed files of the kept
releases by their sha256, and the lease. They hold names, hashes and what the site shows anyway.
"""
