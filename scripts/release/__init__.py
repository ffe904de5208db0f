"""Releases a folder of files to an S3 bucket without ever breaking the page in it.

site.read(folder) walks and hashes the files, references.check(site) refuses a page whose parts are missing.
manifest.read(bucket) and the bucket's LIST say what is there, plan.plan(site, state, …) decides in one pure step, and
publish.publish(bucket, site, state, plan, …) carries the plan out in stages. A stage starts when the one before has
succeeded; the upload of index.html is the commit point.

Under `_release/` in the bucket are the manifest, copies of the kept releases' unhashed files by their sha256, and the
lease. They hold no secrets: names and hashes of files, files of the site, and who released when and from which host.
"""
