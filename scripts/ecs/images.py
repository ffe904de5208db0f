"""Images in the environment's registry, as ECR knows them."""

from scripts.edges import aws
from scripts.frame.errors import DeployError
from scripts.frame.settings import Environment


def find(environment: Environment, repository: str, tag: str) -> str:
    """The digest of an image in ECR, empty if no image has the tag.

    Raises DeployError if the repository does not exist or ECR cannot be asked.
    """
    client = aws.client("ecr", environment)
    with aws.errors(f"looking for {repository}:{tag}", environment):
        try:
            found = client.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
        except client.exceptions.ImageNotFoundException:
            return ""
        except client.exceptions.RepositoryNotFoundException as error:
            raise DeployError(f"There is no repository {repository} in the registry of {environment.name}.") from error
    return str(found["imageDetails"][0]["imageDigest"])
