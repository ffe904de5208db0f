"""The embedded AWS behind --env=local: one process on one loopback port.

moto answers for S3, ECR, SSM, RDS, STS, CloudFront and logs, corrected where a deployment would notice
(s3.py, patches.py). ECS (ecs.py) is our own, because moto's never rolls anything out; so are Lambda's
Invoke (lambdas.py), which really runs ecs_manager, and the Docker registry (registry.py) in front of ECR.
site.py shows a browser what was deployed. seed.py fills it from the settings, control.py lets people
and tests read the requests and inject failures.

No response names a host other than its own: a client could log in or push there.
"""
