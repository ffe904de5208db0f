"""Releasing a folder of files to an S3 bucket so that the page in it is never broken.

site.read(folder) walks and hashes the files, references.check(site) refuses a page whose parts are missing,
bucket.open_bucket(environment) is the door to S3. history.read(bucket) is what LIST and the manifest say,
plan.plan(site, state, …) decides in one pure step, publish.publish(bucket, site, plan, …) acts on it in
stages, each only after all of the one before has succeeded; index.html alone is the commit point.

Under `_release/` in the bucket are the manifest, one record per release, the unhashed files of the kept
releases by their sha256, and the lease. They hold names, hashes and what the site shows anyway.
"""
