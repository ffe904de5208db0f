"""Flags that several commands have."""

from scripts.frame.declaration import flag, switch

FUNCTION = flag("Name of the ecs-manager Lambda. Default: from the settings.")
QUALIFIER = flag("Version or alias of the Lambda. Default: from the settings, or $LATEST with --function-name.")
VIA = flag("lambda: call the ecs-manager Lambda; ecs: call ECS directly. Default: from the settings.")
TAG = flag("Tag of the image. Default: $GITHUB_SHA, else the checked-out commit.")
DIGEST = flag("Digest of the image, sha256:…, instead of its tag.")
BUCKET = flag("Bucket of the releases. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings.")
TARGET = flag("Bucket to release to. Default: $STATIC_S3_BUCKET_<ENV>, $STATIC_S3_BUCKET, or the settings.")
WAIT = switch("Wait until CloudFront has completed the invalidation.")
SCENARIO = flag("What is to go wrong in it: a name in docs/runbook.md, or healthy to end that.")
URI = flag("Full URI of the image, instead of --tag.")
BUILD_DIR = flag("Folder of the built frontend. Default: from the settings.")
FOLDER = flag("Folder to release. Default: from the settings.")
ALLOW_MISSING = flag("Patterns, separated by commas, of files that pages need and that may be missing in the build.")
STORYBOOK = flag("Bucket to release to. Default: $STORYBOOK_S3_BUCKET_<ENV>, $STORYBOOK_S3_BUCKET, or the settings.")
PORT = flag("Port on 127.0.0.1. Default: from the settings. Set AWS_ENDPOINT_URL so that other commands use it.")
SUPERSEDE = switch("Deploy although a rollout of somebody else is in progress, which then ends.")
REMOVE = switch("Remove the secrets that no SSM parameter stands for.")
